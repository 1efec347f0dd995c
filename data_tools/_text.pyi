"""Built from csrc/text."""
