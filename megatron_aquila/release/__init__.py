"""What goes out: an exported model with its cards, checked before anyone else loads it."""
