"""A training corpus out of raw text: one file a step, and the run that chains them."""
