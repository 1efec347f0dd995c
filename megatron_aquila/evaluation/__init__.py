"""What a model knows."""
