// Log-probabilities of target tokens on the CPU: rows are shared out over threads, each is worked by one.
// So a row's result does not depend on the number of threads or of rows.

#include <cstring>

#include "aquila/api.h"
#include "aquila/online_softmax.h"
#include "rows.h"

namespace aquila {
namespace {

int64_t size_of(int dtype) { return dtype == AQUILA_FLOAT64 ? 8 : dtype == AQUILA_FLOAT32 ? 4 : 2; }

bool known(int dtype) { return dtype >= AQUILA_FLOAT32 && dtype <= AQUILA_FLOAT64; }

bool valid(const aquila_logits& logits) {
    return logits.rows >= 0 && logits.columns >= 0 && logits.width >= logits.columns;
}

const char* row_of(const aquila_logits& logits, int64_t row) {
    return static_cast<const char*>(logits.data) + row * logits.row_stride * size_of(logits.dtype);
}

Stats<double> stats_float64(const void* data, int64_t columns, int64_t target) {
    const double* row = static_cast<const double*>(data);
    Stats<double> stats = no_columns<double>();
    for (int64_t v = 0; v < columns; ++v) stats.m = row[v] > stats.m ? row[v] : stats.m;
    const double shift = finite_shift(stats.m);
    for (int64_t v = 0; v < columns; ++v) stats.s += exponential(row[v] - shift);
    if (target >= 0) stats.t = row[target];
    return stats;
}

void gradient_float64(
    const void* data, void* output, int64_t columns, int64_t target, double c, double m, double inverse_s) {
    const double* row = static_cast<const double*>(data);
    double* out = static_cast<double*>(output);
    for (int64_t v = 0; v < columns; ++v)
        out[v] = (v == target ? c : 0.0) - c * exponential(row[v] - m) * inverse_s;
}

template <typename T>
void token_stats(
    const RowKernels<T>& kernels, const aquila_logits& logits, const aquila_targets& targets, T* stats, int threads) {
    const int64_t rows = logits.rows;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t target = targets.ids[row * targets.stride];
        const Stats<T> result =
            target == targets.ignore_index
                ? no_columns<T>()
                : kernels.stats(row_of(logits, row), logits.columns, local_column(logits, target));
        stats[row] = result.m;
        stats[rows + row] = result.s;
        stats[2 * rows + row] = result.t;
    }
}

template <typename T>
void merge_stats(
    const T* parts, int64_t count, int64_t rows, const aquila_targets& targets, int64_t vocab_size, bool finished,
    T* out) {
    for (int64_t row = 0; row < rows; ++row) {
        Stats<T> stats = no_columns<T>();
        for (int64_t part = 0; part < count; ++part) {
            const T* from = parts + part * 3 * rows + row;
            const Stats<T> next = {from[0], from[rows], from[2 * rows]};
            stats = part == 0 ? next : merge(stats, next);
        }
        T result[3] = {stats.m, stats.s, stats.t};
        if (finished) {
            const Finished<T> end =
                finish(stats, targets.ids[row * targets.stride], targets.ignore_index, vocab_size);
            result[0] = end.m, result[1] = end.inverse_s, result[2] = end.logp;
        }
        for (int i = 0; i < 3; ++i) out[i * rows + row] = result[i];
    }
}

template <typename T>
void token_gradient(
    const RowKernels<T>& kernels, const aquila_logits& logits, const aquila_targets& targets, const T* state,
    const T* grad, int64_t grad_stride, const T* scale, void* out, int64_t out_row_stride, int threads) {
    const int64_t element = size_of(logits.dtype), rows = logits.rows;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t row = 0; row < rows; ++row) {
        char* to = static_cast<char*>(out) + row * out_row_stride * element;
        const int64_t target = targets.ids[row * targets.stride];
        const T c = target == targets.ignore_index ? T(0) : grad[row * grad_stride] * (scale ? *scale : T(1));
        int64_t written = 0;
        if (c != T(0)) {
            kernels.gradient(
                row_of(logits, row), to, logits.columns, local_column(logits, target), c, state[row],
                state[rows + row]);
            written = logits.columns;
        }
        std::memset(to + written * element, 0, (logits.width - written) * element);
    }
}

const RowKernels<float>& kernels_for(int dtype) {
    const InstructionSet& set = instruction_set();
    return dtype == AQUILA_FLOAT32 ? set.float32 : dtype == AQUILA_BFLOAT16 ? set.bfloat16 : set.float16;
}

}  // namespace

const RowKernels<double> float64_kernels = {stats_float64, gradient_float64};

}  // namespace aquila

using namespace aquila;

int64_t aquila_cpu_first_wrong_target(const aquila_targets* targets, int64_t rows, int64_t vocab_size) {
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t target = targets->ids[row * targets->stride];
        if (target != targets->ignore_index && (target < 0 || target >= vocab_size)) return row;
    }
    return -1;
}

int aquila_cpu_token_stats(const aquila_logits* logits, const aquila_targets* targets, void* stats, int threads) {
    if (!known(logits->dtype)) return AQUILA_BAD_DTYPE;
    if (!valid(*logits)) return AQUILA_BAD_ARGUMENT;
    if (logits->dtype == AQUILA_FLOAT64)
        token_stats(float64_kernels, *logits, *targets, static_cast<double*>(stats), threads);
    else
        token_stats(kernels_for(logits->dtype), *logits, *targets, static_cast<float*>(stats), threads);
    return AQUILA_OK;
}

int aquila_cpu_merge_stats(
    const void* parts, int64_t count, int64_t rows, int dtype, const aquila_targets* targets, int64_t vocab_size,
    int finish, void* out) {
    if (count < 1 || rows < 0) return AQUILA_BAD_ARGUMENT;
    if (dtype == AQUILA_FLOAT64)
        merge_stats(
            static_cast<const double*>(parts), count, rows, *targets, vocab_size, finish != 0,
            static_cast<double*>(out));
    else if (dtype == AQUILA_FLOAT32)
        merge_stats(
            static_cast<const float*>(parts), count, rows, *targets, vocab_size, finish != 0,
            static_cast<float*>(out));
    else
        return AQUILA_BAD_DTYPE;
    return AQUILA_OK;
}

int aquila_cpu_token_gradient(
    const aquila_logits* logits, const aquila_targets* targets, const void* state, const void* grad,
    int64_t grad_stride, const void* scale, void* out, int64_t out_row_stride, int threads) {
    if (!known(logits->dtype)) return AQUILA_BAD_DTYPE;
    if (!valid(*logits)) return AQUILA_BAD_ARGUMENT;
    if (logits->dtype == AQUILA_FLOAT64)
        token_gradient(
            float64_kernels, *logits, *targets, static_cast<const double*>(state), static_cast<const double*>(grad),
            grad_stride, static_cast<const double*>(scale), out, out_row_stride, threads);
    else
        token_gradient(
            kernels_for(logits->dtype), *logits, *targets, static_cast<const float*>(state),
            static_cast<const float*>(grad), grad_stride, static_cast<const float*>(scale), out, out_row_stride,
            threads);
    return AQUILA_OK;
}
