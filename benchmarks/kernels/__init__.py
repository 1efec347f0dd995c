"""The kernels beside what else does their work: times, memory, and how near they come to what the machine can do."""
