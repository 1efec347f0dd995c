// What lets a .cu file be compiled by nvcc, or by g++ against the emulation of csrc/tests/cuda_emulation.

#ifndef AQUILA_CUDA_LAUNCH_H
#define AQUILA_CUDA_LAUNCH_H

#include <cuda_runtime.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>

#include "aquila/api.h"

// A kernel name with a comma in its template arguments goes in parentheses.
#if defined(__CUDACC__)
#define AQUILA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    kernel<<<(grid), (block), (shared_bytes), static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#define AQUILA_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#else
#define AQUILA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    ((void)(stream), emulation::launch((grid), (block), (shared_bytes), [=] { (kernel)(__VA_ARGS__); }))
#define AQUILA_DYNAMIC_SHARED(name) unsigned char* const name = emulation::dynamic_shared()
#endif

namespace aquila::cuda {

constexpr int64_t max_blocks = INT_MAX;  // of gridDim.x
constexpr unsigned full_warp = 0xffffffffu;

inline int last_error() {
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? AQUILA_OK : AQUILA_CUDA_ERROR + static_cast<int>(error);
}

// The runtime is linked statically, so its current device need not be the caller's. The context that cudaSetDevice
// makes current is the thread's, shared with the caller's runtime: it must be put back.
template <typename Launch>
int launch_on(int device, Launch launch) {
    int current = 0;
    if (cudaGetDevice(&current) != cudaSuccess) return last_error();
    if (current != device && cudaSetDevice(device) != cudaSuccess) return last_error();
    launch();
    const int status = last_error();
    if (current != device && cudaSetDevice(current) != cudaSuccess) return last_error();
    return status;
}

// 2^x within 2 ulp, results below the smallest normal number as 0.
__device__ inline float fast_exp2(float x) {
#if defined(__CUDA_ARCH__)
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

// exp(x − shift). The difference comes first: with log2 e folded into a fused x · log2 e − shift · log2 e, a common
// offset of the logits would cost the digits that tell them apart.
__device__ inline float exp_difference(float x, float shift) { return fast_exp2((x - shift) * 1.4426950408889634f); }

}  // namespace aquila::cuda

#endif
