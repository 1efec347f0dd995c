// Kernels with an error that the emulation has to show, and their sound counterpart.

#include "cuda/launch.h"

namespace {

constexpr int ring_threads = 64;

// Passes each thread's number to its neighbour.
__global__ void ring_kernel(bool with_barrier, float* out) {
    AQUILA_DYNAMIC_SHARED(memory);
    float* const numbers = reinterpret_cast<float*>(memory);
    numbers[threadIdx.x] = static_cast<float>(threadIdx.x);
    if (with_barrier) __syncthreads();
    out[threadIdx.x] = numbers[(threadIdx.x + 1) % ring_threads];
}

__global__ void divergent_barrier_kernel() {
    if (threadIdx.x % 2 == 0) __syncthreads();
}

__global__ void divergent_shuffle_kernel(float* out) {
    if (threadIdx.x != 5) out[0] = __shfl_xor_sync(aquila::cuda::full_warp, 1.0f, 1);
}

__global__ void misaligned_kernel(float* out) { __stcs(reinterpret_cast<uint4*>(out + 1), make_uint4(0, 0, 0, 0)); }

}  // namespace

extern "C" void aquila_emulation_ring(int with_barrier, float* out) {
    AQUILA_LAUNCH(ring_kernel, 1, ring_threads, ring_threads * sizeof(float), nullptr, with_barrier != 0, out);
}

extern "C" void aquila_emulation_divergent_barrier(float*) {
    AQUILA_LAUNCH(divergent_barrier_kernel, 1, 64, 0, nullptr);
}

extern "C" void aquila_emulation_divergent_shuffle(float* out) {
    AQUILA_LAUNCH(divergent_shuffle_kernel, 1, 64, 0, nullptr, out);
}

extern "C" void aquila_emulation_misaligned(float* out) { AQUILA_LAUNCH(misaligned_kernel, 1, 1, 0, nullptr, out); }
