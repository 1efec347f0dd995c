// Losses on pairs of answers, with the gradient with respect to every token's log-probability, in one launch: api.h.
//
// One block per pair. The block that finishes last adds up the pairs. No sum depends on which one that is.

#include "aquila/preference.h"

#include "aquila/api.h"
#include "launch.h"

namespace aquila::cuda {
namespace {

constexpr int pair_threads = 512;
constexpr int pair_warps = pair_threads / 32;

struct Tokens {
    const float* logps;
    int64_t logps_stride;
    int64_t count;
    aquila_targets targets;
    const int64_t* cu_seqlens;

    __device__ bool counts(int64_t i) const { return targets.ids[i * targets.stride] != targets.ignore_index; }
};

struct Outputs {
    float* coefficients;
    double *sequences, *pairs, *totals;
    uint32_t* counter;
};

// Sums of `size` numbers over the block, in `sums` for every thread: within warps, then over warps from the first on.
template <int size>
__device__ void sum_over_block(double (&values)[size], double (&sums)[size]) {
    __shared__ double of_warps[pair_warps][size];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int k = 0; k < size; ++k) {
        for (int distance = 16; distance > 0; distance /= 2) {
            values[k] += __shfl_down_sync(full_warp, values[k], distance);
        }
        if (lane == 0) of_warps[warp][k] = values[k];
    }
    __syncthreads();
    if (threadIdx.x < size) {
        double sum = 0;
        for (int w = 0; w < pair_warps; ++w) sum += of_warps[w][threadIdx.x];
        sums[threadIdx.x] = sum;
    }
    __syncthreads();
}

struct SegmentSum {
    double logps = 0, length = 0;
};

__device__ SegmentSum sum_segment(const Tokens& tokens, int64_t sequence) {
    SegmentSum sum;
    const int64_t end = tokens.cu_seqlens[sequence + 1];
#pragma unroll 4
    for (int64_t i = tokens.cu_seqlens[sequence] + threadIdx.x; i < end; i += pair_threads) {
        // Loaded either way, so that loads of several rounds overlap; an ignored token's value is not used.
        const float logp = tokens.logps[i * tokens.logps_stride];
        const bool counts = tokens.counts(i);
        sum.logps += counts ? static_cast<double>(logp) : 0.0;
        sum.length += counts ? 1.0 : 0.0;
    }
    return sum;
}

__device__ void write_coefficients(const Tokens& tokens, int64_t sequence, float coefficient, float* coefficients) {
    const int64_t end = tokens.cu_seqlens[sequence + 1];
    for (int64_t i = tokens.cu_seqlens[sequence] + threadIdx.x; i < end; i += pair_threads) {
        coefficients[i] = tokens.counts(i) ? coefficient : 0.0f;
    }
}

// Tokens before the first sequence and after the last one belong to no pair; all blocks share them.
__device__ void write_outside(const Tokens& tokens, int64_t pair_count, float* coefficients) {
    const int64_t before = pair_count == 0 ? 0 : tokens.cu_seqlens[0];
    const int64_t after = pair_count == 0 ? 0 : tokens.cu_seqlens[2 * pair_count];
    const int64_t first = static_cast<int64_t>(blockIdx.x) * pair_threads + threadIdx.x;
    const int64_t step = static_cast<int64_t>(gridDim.x) * pair_threads;
    for (int64_t i = first; i < before; i += step) coefficients[i] = 0;
    for (int64_t i = after + first; i < tokens.count; i += step) coefficients[i] = 0;
}

__device__ void write_sequence(double* sequences, int64_t sequence, const Answer& answer, double reward) {
    double* const row = sequences + sequence * AQUILA_SEQUENCE_COLUMNS;
    row[SEQUENCE_LOGPS] = answer.logps;
    row[SEQUENCE_REWARD] = reward;
    row[SEQUENCE_LENGTH] = static_cast<double>(answer.length);
}

__device__ void write_totals(const Outputs& out, int64_t pair_count) {
    double values[AQUILA_TOTALS] = {};
    for (int64_t pair = threadIdx.x; pair < pair_count; pair += pair_threads) {
        // Past the first-level cache, which other blocks' writes do not reach.
        const auto of_pair = [&](int column) -> double {
            return __ldcg(out.pairs + pair * AQUILA_PAIR_COLUMNS + column);
        };
        const auto of_sequence = [&](int which, int column) -> double {
            return __ldcg(out.sequences + (2 * pair + which) * AQUILA_SEQUENCE_COLUMNS + column);
        };
        values[TOTAL_LOSS] += of_pair(PAIR_LOSS);
        values[TOTAL_CHOSEN_REWARD] += of_sequence(0, SEQUENCE_REWARD);
        values[TOTAL_REJECTED_REWARD] += of_sequence(1, SEQUENCE_REWARD);
        values[TOTAL_MARGIN] += of_pair(PAIR_MARGIN);
        values[TOTAL_ACCURACY] += of_pair(PAIR_MARGIN) > 0 ? 1.0 : 0.0;
        values[TOTAL_CHOSEN_LOGPS] += of_sequence(0, SEQUENCE_LOGPS);
        values[TOTAL_REJECTED_LOGPS] += of_sequence(1, SEQUENCE_LOGPS);
        values[TOTAL_TOKENS] += of_sequence(0, SEQUENCE_LENGTH) + of_sequence(1, SEQUENCE_LENGTH);
    }
    __shared__ double sums[AQUILA_TOTALS];
    sum_over_block(values, sums);
    if (threadIdx.x < AQUILA_TOTALS) out.totals[threadIdx.x] = sums[threadIdx.x];
}

// One block per SM is enough: without saying so, the compiler spills to make room for two.
__global__ void __launch_bounds__(pair_threads, 1) preference_kernel(
    Tokens tokens, int64_t pair_count, const double* reference, aquila_preference_options options, Outputs out) {
    write_outside(tokens, pair_count, out.coefficients);
    if (pair_count == 0) {
        write_totals(out, 0);
        return;
    }
    const int64_t pair = blockIdx.x, chosen = 2 * pair, rejected = 2 * pair + 1;
    const SegmentSum of_chosen = sum_segment(tokens, chosen), of_rejected = sum_segment(tokens, rejected);
    double values[4] = {of_chosen.logps, of_rejected.logps, of_chosen.length, of_rejected.length};
    __shared__ double sums[4];
    sum_over_block(values, sums);

    __shared__ float coefficients[2];
    __shared__ bool is_last;
    if (threadIdx.x == 0) {
        const Answer answers[2] = {
            {sums[0], reference ? reference[chosen] : 0.0, static_cast<int64_t>(sums[2])},
            {sums[1], reference ? reference[rejected] : 0.0, static_cast<int64_t>(sums[3])}};
        const PairLoss result = pair_loss(answers[0], answers[1], options);
        coefficients[0] = static_cast<float>(result.chosen_coefficient);
        coefficients[1] = static_cast<float>(result.rejected_coefficient);
        write_sequence(out.sequences, chosen, answers[0], result.chosen_reward);
        write_sequence(out.sequences, rejected, answers[1], result.rejected_reward);
        double* const row = out.pairs + pair * AQUILA_PAIR_COLUMNS;
        row[PAIR_LOSS] = result.loss;
        row[PAIR_LOGIT] = result.logit;
        row[PAIR_MARGIN] = result.chosen_reward - result.rejected_reward;
        // This pair's rows become visible before its ticket does. The counter wraps to 0 with the last ticket.
        __threadfence();
        is_last = atomicInc(out.counter, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    write_coefficients(tokens, chosen, coefficients[0], out.coefficients);
    write_coefficients(tokens, rejected, coefficients[1], out.coefficients);
    if (!is_last) return;
    __threadfence();
    write_totals(out, pair_count);
}

}  // namespace
}  // namespace aquila::cuda

extern "C" int aquila_cuda_preference(
    const void* logps, int64_t logps_stride, int64_t tokens, const aquila_targets* targets, const int64_t* cu_seqlens,
    int64_t pair_count, const double* reference, const aquila_preference_options* options, int dtype,
    void* coefficients, double* sequences, double* pairs, double* totals, uint32_t* counter, int device, void* stream) {
    using namespace aquila::cuda;
    if (dtype != AQUILA_FLOAT32) return AQUILA_BAD_DTYPE;
    if (tokens < 0 || pair_count < 0) return AQUILA_BAD_ARGUMENT;
    if (options->loss < AQUILA_SIGMOID || options->loss > AQUILA_ORPO) return AQUILA_BAD_ARGUMENT;
    if (pair_count > max_blocks) return AQUILA_TOO_LARGE;
    const Tokens all = {static_cast<const float*>(logps), logps_stride, tokens, *targets, cu_seqlens};
    const Outputs out = {static_cast<float*>(coefficients), sequences, pairs, totals, counter};
    return launch_on(device, [&] {
        AQUILA_LAUNCH(
            preference_kernel, static_cast<unsigned>(pair_count > 0 ? pair_count : 1), pair_threads, 0, stream, all,
            pair_count, reference, *options, out);
    });
}
