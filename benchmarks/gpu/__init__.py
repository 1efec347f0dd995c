"""One GPU: its tests, its kernels, and the speed of training. `benchmarks/gpu.sh` runs all of it."""
