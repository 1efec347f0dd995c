// What the rest asks of the CUDA runtime, so that only nvcc needs its headers.

#include <cuda_runtime.h>

#include "aquila/api.h"

extern "C" int aquila_cuda_device_count(void) {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

extern "C" const char* aquila_cuda_error_text(int status) {
    return cudaGetErrorString(static_cast<cudaError_t>(status - AQUILA_CUDA_ERROR));
}
