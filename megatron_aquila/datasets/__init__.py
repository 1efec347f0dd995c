"""What a stage reads: samples, how they are drawn, and how they become micro-batches."""
