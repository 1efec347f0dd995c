// The part of CUDA that the kernels use, for g++. It stands in for the toolkit's header of the same name.
//
// The threads of a block are fibers on one thread of the host; blocks run one after another. Between two barriers
// the fibers run one at a time, in an order that `aquila_emulation_schedule` chooses: a kernel that lacks a barrier
// gives other results in another order. Shared memory is filled with NaN before each block.

#ifndef AQUILA_CUDA_EMULATION_H
#define AQUILA_CUDA_EMULATION_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#define __host__
#define __device__
#define __global__
#define __launch_bounds__(...)
// All shared variables lie in one section, whose bounds the linker provides: so they can be filled.
#define __shared__ static __attribute__((section("aquila_shared")))

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1) : x(x_size), y(y_size), z(z_size) {}
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorInvalidDevice = 101 };
using cudaStream_t = struct CUstream_st*;

cudaError_t cudaGetLastError();
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);

extern dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulation {

void launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);
unsigned char* dynamic_shared();

// Every thread of the block has to reach the same barrier.
void block_barrier(const char* file, int line);

// Every lane of the warp has to come, with as many bytes; returns those of `source`, a lane of this warp.
void warp_exchange(unsigned mask, const void* mine, void* theirs, size_t size, int source);
int lane();
int lanes();

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

template <typename T>
T shuffle(unsigned mask, T value, int source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles 4 or 8 bytes");
    T result;
    warp_exchange(mask, &value, &result, sizeof(T), source < lanes() ? source : lane());
    return result;
}

inline void check_aligned(const void* address) {
    if (reinterpret_cast<uintptr_t>(address) % 16) fail("a 16-byte access at %p, which is not aligned", address);
}

}  // namespace emulation

#define __syncthreads() emulation::block_barrier(__FILE__, __LINE__)

inline void __syncwarp(unsigned mask = 0xffffffffu) {
    char nothing;
    emulation::warp_exchange(mask, &nothing, &nothing, 0, emulation::lane());
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source) {
    return emulation::shuffle(mask, value, source % 32);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
    return emulation::shuffle(mask, value, emulation::lane() ^ bits);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance) {
    return emulation::shuffle(mask, value, emulation::lane() + static_cast<int>(distance));
}

inline void __threadfence() {}

inline unsigned atomicInc(unsigned* address, unsigned limit) {
    const unsigned old = *address;
    *address = old >= limit ? 0 : old + 1;
    return old;
}

// Copied as bytes: the same memory is also read as single elements.
inline uint4 __ldcs(const uint4* address) {
    emulation::check_aligned(address);
    uint4 value;
    memcpy(&value, address, sizeof(value));
    return value;
}

inline void __stcs(uint4* address, uint4 value) {
    emulation::check_aligned(address);
    memcpy(static_cast<void*>(address), &value, sizeof(value));
}

template <typename T>
T __ldcg(const T* address) {
    return *address;
}

#endif
