// The CUDA kernels for g++: a library with the same aquila_cuda_* functions, on host memory.

// First, so that every header takes `__device__` and its kind for nothing.
#include "cuda_runtime.h"

#include "cuda/preference.cu"
#include "cuda/token_logps.cu"

#include "tests/cuda_emulation/broken_kernels.cuh"
