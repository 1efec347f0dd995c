"""Training runs and their evaluations as one HTML page, made of what they left on disk."""
