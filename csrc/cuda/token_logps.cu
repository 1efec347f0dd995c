// Log-probabilities of target tokens, and their gradient, over one shard of the vocabulary: api.h.
//
// One block per row. Reductions run in an order fixed by the row's length and alignment: the same bits every time.

#include "aquila/api.h"
#include "aquila/online_softmax.h"
#include "dtypes.cuh"
#include "launch.h"
#include "rows.cuh"

namespace aquila::cuda {
namespace {

constexpr int row_warps = row_threads / 32;

// m and s of the columns that a thread has seen.
struct Running {
    float m = -INFINITY, s = 0;

    // One maximum and one rescaling for the whole batch. fmaxf passes over NaN, which goes into s.
    template <int n>
    __device__ void add(const float (&x)[n]) {
        float top = m;
#pragma unroll
        for (int i = 0; i < n; ++i) top = fmaxf(top, x[i]);
        const float shift = finite_shift(top);
        float sum = 0;
#pragma unroll
        for (int i = 0; i < n; ++i) sum += exp_difference(x[i], shift);
        s = s * exp_difference(m, shift) + sum;
        m = top;
    }
};

template <typename Dtype>
__device__ Running thread_statistics(const typename Dtype::Element* row, int64_t columns) {
    Running running;
    const Span span = aligned_span<Dtype>(row, columns);
    const uint4* const vectors = reinterpret_cast<const uint4*>(row + span.head);
    for (int64_t v = threadIdx.x; v < span.vectors; v += row_threads * in_flight) {
        uint4 loaded[in_flight];
        load_vectors(vectors, v, span.vectors, Dtype::minus_infinity, loaded);
        float x[in_flight * per_vector<Dtype>];
#pragma unroll
        for (int k = 0; k < in_flight; ++k) unpack<Dtype>(loaded[k], x + k * per_vector<Dtype>);
        running.add(x);
    }
    // Head and tail are shorter than a vector each; they go to different warps.
    const int64_t tail = span.head + span.vectors * per_vector<Dtype>;
    int64_t single = threadIdx.x < 32 ? threadIdx.x : columns;
    if (single >= span.head) single = threadIdx.x < 32 ? columns : tail + (threadIdx.x - 32);
    if (single < columns) {
        const float x[1] = {Dtype::widen(row[single])};
        running.add(x);
    }
    return running;
}

__device__ inline Stats<float> merge_from_below(const Stats<float>& mine, int distance) {
    const Stats<float> other = {
        __shfl_down_sync(full_warp, mine.m, distance), __shfl_down_sync(full_warp, mine.s, distance),
        __shfl_down_sync(full_warp, mine.t, distance)};
    return merge(mine, other);
}

// Thread 0 has the result.
__device__ Stats<float> merge_block(Stats<float> mine) {
    __shared__ float m[row_warps], s[row_warps], t[row_warps];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int distance = 16; distance > 0; distance /= 2) mine = merge_from_below(mine, distance);
    if (lane == 0) {
        m[warp] = mine.m;
        s[warp] = mine.s;
        t[warp] = mine.t;
    }
    __syncthreads();
    if (warp == 0) {
        mine = lane < row_warps ? Stats<float>{m[lane], s[lane], t[lane]} : no_columns<float>();
        for (int distance = row_warps / 2; distance > 0; distance /= 2) mine = merge_from_below(mine, distance);
    }
    return mine;
}

template <typename Dtype>
__global__ void __launch_bounds__(row_threads, row_blocks_per_sm)
    stats_kernel(aquila_logits logits, aquila_targets targets, float* stats) {
    using Element = typename Dtype::Element;
    const int64_t row = blockIdx.x;
    const int64_t target = targets.ids[row * targets.stride];
    Stats<float> merged = no_columns<float>();
    if (target != targets.ignore_index) {  // the same for the whole block
        const Element* const x = static_cast<const Element*>(logits.data) + row * logits.row_stride;
        const Running running = thread_statistics<Dtype>(x, logits.columns);
        const int64_t column = threadIdx.x == 0 ? local_column(logits, target) : -1;
        merged = merge_block({running.m, running.s, column >= 0 ? Dtype::widen(x[column]) : -INFINITY});
    }
    if (threadIdx.x == 0) {
        stats[row] = merged.m;
        stats[logits.rows + row] = merged.s;
        stats[2 * logits.rows + row] = merged.t;
    }
}

constexpr int merge_threads = 256;

__global__ void merge_kernel(
    const float* parts, int64_t count, int64_t rows, aquila_targets targets, int64_t vocab_size, int finished,
    float* out) {
    const int64_t row = static_cast<int64_t>(blockIdx.x) * merge_threads + threadIdx.x;
    if (row >= rows) return;
    Stats<float> merged = no_columns<float>();
    for (int64_t part = 0; part < count; ++part) {
        const float* const stats = parts + part * 3 * rows + row;
        merged = merge(merged, Stats<float>{stats[0], stats[rows], stats[2 * rows]});
    }
    if (finished) {
        const auto result = finish(merged, targets.ids[row * targets.stride], targets.ignore_index, vocab_size);
        merged = {result.m, result.inverse_s, result.logp};
    }
    out[row] = merged.m;
    out[rows + row] = merged.s;
    out[2 * rows + row] = merged.t;
}

// c (1[v = y] − exp(x − m) / s) of one row.
struct RowGradient {
    float m, c, c_over_s;

    // The target's own element is formed in float32 and rounded once.
    __device__ float operator()(float x, bool is_target) const {
        return (is_target ? c : 0.0f) - c_over_s * exp_difference(x, m);
    }
};

template <typename Dtype>
__device__ void write_zeros(typename Dtype::Element* out, int64_t width) {
    const Span span = aligned_span<Dtype>(out, width);
    uint4* const vectors = reinterpret_cast<uint4*>(out + span.head);
    for (int64_t v = threadIdx.x; v < span.vectors; v += row_threads) __stcs(vectors + v, make_uint4(0, 0, 0, 0));
    for (int64_t i = threadIdx.x; i < span.head; i += row_threads) out[i] = Dtype::narrow(0);
    for (int64_t i = span.head + span.vectors * per_vector<Dtype> + threadIdx.x; i < width; i += row_threads) {
        out[i] = Dtype::narrow(0);
    }
}

// Every element is read and written by one thread, which reads it first: `out` may be `x`.
template <typename Dtype>
__device__ void write_gradient(
    const typename Dtype::Element* x, typename Dtype::Element* out, int64_t columns, int64_t width, int64_t target,
    const RowGradient& gradient) {
    const bool congruent = reinterpret_cast<uintptr_t>(x) % 16 == reinterpret_cast<uintptr_t>(out) % 16;
    const Span span = congruent ? aligned_span<Dtype>(x, columns) : Span{0, 0};
    const uint4* const vectors = reinterpret_cast<const uint4*>(x + span.head);
    uint4* const out_vectors = reinterpret_cast<uint4*>(out + span.head);
    for (int64_t v = threadIdx.x; v < span.vectors; v += row_threads * in_flight) {
        uint4 loaded[in_flight];
        load_vectors(vectors, v, span.vectors, 0, loaded);
#pragma unroll
        for (int k = 0; k < in_flight; ++k) {
            const int64_t at = v + k * row_threads;
            if (at >= span.vectors) break;
            const int64_t distance = target - span.head - at * per_vector<Dtype>;
            const int within = distance >= 0 && distance < per_vector<Dtype> ? static_cast<int>(distance) : -1;
            float values[per_vector<Dtype>];
            unpack<Dtype>(loaded[k], values);
#pragma unroll
            for (int i = 0; i < per_vector<Dtype>; ++i) values[i] = gradient(values[i], i == within);
            __stcs(out_vectors + at, pack<Dtype>(values));
        }
    }
    const auto write_single = [&](int64_t i) {
        out[i] = Dtype::narrow(i < columns ? gradient(Dtype::widen(x[i]), i == target) : 0.0f);
    };
    for (int64_t i = threadIdx.x; i < span.head; i += row_threads) write_single(i);
    const int64_t tail = span.head + span.vectors * per_vector<Dtype>;
    for (int64_t i = tail + threadIdx.x; i < width; i += row_threads) write_single(i);
}

template <typename Dtype>
__global__ void __launch_bounds__(row_threads, row_blocks_per_sm) gradient_kernel(
    aquila_logits logits, aquila_targets targets, const float* state, const float* grad, int64_t grad_stride,
    const float* scale, typename Dtype::Element* all_out, int64_t out_row_stride) {
    using Element = typename Dtype::Element;
    const int64_t row = blockIdx.x;
    const int64_t target = targets.ids[row * targets.stride];
    float c = 0;
    if (target != targets.ignore_index) c = grad[row * grad_stride] * (scale ? *scale : 1.0f);
    Element* const out = all_out + row * out_row_stride;
    if (c == 0) {
        write_zeros<Dtype>(out, logits.width);
        return;
    }
    const Element* const x = static_cast<const Element*>(logits.data) + row * logits.row_stride;
    const RowGradient gradient = {state[row], c, c * state[logits.rows + row]};
    write_gradient<Dtype>(x, out, logits.columns, logits.width, local_column(logits, target), gradient);
}

int check(const aquila_logits& logits) {
    if (logits.rows < 0 || logits.columns < 0 || logits.width < logits.columns) return AQUILA_BAD_ARGUMENT;
    return logits.rows > max_blocks ? AQUILA_TOO_LARGE : AQUILA_OK;
}

}  // namespace
}  // namespace aquila::cuda

using namespace aquila::cuda;

extern "C" int aquila_cuda_token_stats(
    const aquila_logits* logits, const aquila_targets* targets, void* stats, int device, void* stream) {
    return by_dtype(logits->dtype, [&](auto dtype) {
        const int status = check(*logits);
        if (status != AQUILA_OK || logits->rows == 0) return status;
        return launch_on(device, [&] {
            AQUILA_LAUNCH(
                stats_kernel<decltype(dtype)>, static_cast<unsigned>(logits->rows), row_threads, 0, stream, *logits,
                *targets, static_cast<float*>(stats));
        });
    });
}

extern "C" int aquila_cuda_merge_stats(
    const void* parts, int64_t count, int64_t rows, int dtype, const aquila_targets* targets, int64_t vocab_size,
    int finish, void* out, int device, void* stream) {
    if (dtype != AQUILA_FLOAT32) return AQUILA_BAD_DTYPE;
    if (count < 1 || rows < 0) return AQUILA_BAD_ARGUMENT;
    const int64_t blocks = rows / merge_threads + (rows % merge_threads != 0);
    if (blocks > max_blocks) return AQUILA_TOO_LARGE;
    if (rows == 0) return AQUILA_OK;
    return launch_on(device, [&] {
        AQUILA_LAUNCH(
            merge_kernel, static_cast<unsigned>(blocks), merge_threads, 0, stream, static_cast<const float*>(parts),
            count, rows, targets ? *targets : aquila_targets{}, vocab_size, finish, static_cast<float*>(out));
    });
}

extern "C" int aquila_cuda_token_gradient(
    const aquila_logits* logits, const aquila_targets* targets, const void* state, const void* grad,
    int64_t grad_stride, const void* scale, void* out, int64_t out_row_stride, int device, void* stream) {
    return by_dtype(logits->dtype, [&](auto dtype) {
        using Dtype = decltype(dtype);
        const int status = check(*logits);
        if (status != AQUILA_OK || logits->rows == 0) return status;
        return launch_on(device, [&] {
            AQUILA_LAUNCH(
                gradient_kernel<Dtype>, static_cast<unsigned>(logits->rows), row_threads, 0, stream, *logits, *targets,
                static_cast<const float*>(state), static_cast<const float*>(grad), grad_stride,
                static_cast<const float*>(scale), static_cast<typename Dtype::Element*>(out), out_row_stride);
        });
    });
}
