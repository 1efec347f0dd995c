"""What a run needs before it is launched: time, memory, disk. Arithmetic alone: no torch, no GPU."""
