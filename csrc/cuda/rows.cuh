// A row of logits read by one block: 16-byte vectors, several in flight per thread, and what does not fill one.

#ifndef AQUILA_CUDA_ROWS_CUH
#define AQUILA_CUDA_ROWS_CUH

#include <cuda_runtime.h>
#include <stdint.h>

#include "dtypes.cuh"

namespace aquila::cuda {

constexpr int row_threads = 512;
constexpr int row_blocks_per_sm = 2;  // at most 64 registers a thread
// 512 threads · 4 · 16 bytes = 32 KiB a block, 64 KiB an SM: three times what hides the latency of HBM3.
constexpr int in_flight = 4;

template <typename Dtype>
constexpr int per_vector = 16 / sizeof(typename Dtype::Element);

// Where rows are 12501 elements apart, each starts at another offset from a 16-byte boundary: a row is `head` single
// elements, `vectors` aligned vectors, and a tail of single elements.
struct Span {
    int64_t head, vectors;
};

template <typename Dtype>
__device__ inline Span aligned_span(const void* row, int64_t columns) {
    const int beyond = static_cast<int>(reinterpret_cast<uintptr_t>(row) % 16);
    int64_t head = beyond == 0 ? 0 : (16 - beyond) / static_cast<int>(sizeof(typename Dtype::Element));
    if (head > columns) head = columns;
    return {head, (columns - head) / per_vector<Dtype>};
}

template <typename Dtype>
__device__ inline void unpack(const uint4& vector, float* x) {
    Dtype::unpack(vector.x, x);
    Dtype::unpack(vector.y, x + Dtype::per_word);
    Dtype::unpack(vector.z, x + 2 * Dtype::per_word);
    Dtype::unpack(vector.w, x + 3 * Dtype::per_word);
}

template <typename Dtype>
__device__ inline uint4 pack(const float* x) {
    return make_uint4(
        Dtype::pack(x), Dtype::pack(x + Dtype::per_word), Dtype::pack(x + 2 * Dtype::per_word),
        Dtype::pack(x + 3 * Dtype::per_word));
}

// This thread's share of a round of vectors; beyond the end, `filler` in every word. Each byte is used once, so it
// should not push anything out of the caches.
__device__ inline void load_vectors(
    const uint4* vectors, int64_t first, int64_t count, uint32_t filler, uint4 (&loaded)[in_flight]) {
#pragma unroll
    for (int k = 0; k < in_flight; ++k) {
        const int64_t at = first + k * row_threads;
        loaded[k] = at < count ? __ldcs(vectors + at) : make_uint4(filler, filler, filler, filler);
    }
}

}  // namespace aquila::cuda

#endif
