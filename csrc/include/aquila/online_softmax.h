// (m, s, t): the maximum, the sum of exponentials below it, and the target's logit of some columns of one row.
//
// Two such triples of disjoint columns merge into that of their union, in any order: over the blocks of a row, the
// splits of a vocabulary or the ranks of a tensor-parallel group.

#ifndef AQUILA_ONLINE_SOFTMAX_H
#define AQUILA_ONLINE_SOFTMAX_H

#include <math.h>
#include <stdint.h>

#include "aquila/api.h"
#include "aquila/platform.h"

namespace aquila {

template <typename T>
struct Stats {
    T m, s, t;
};

// The column of this shard that is the target; −1 where another shard has it, or none.
AQUILA_HD int64_t local_column(const aquila_logits& logits, int64_t target) {
    if (target < logits.first_column) return -1;
    const int64_t column = target - logits.first_column;
    return column < logits.columns ? column : -1;
}

template <typename T>
AQUILA_HD Stats<T> no_columns() {
    return {T(-INFINITY), T(0), T(-INFINITY)};
}

// The number to subtract in place of m. A row of −inf has no finite maximum: x − m would be −inf − −inf = NaN.
template <typename T>
AQUILA_HD T finite_shift(T m) {
    return m == T(-INFINITY) ? T(0) : m;
}

// A NaN logit does not win the maximum; it reaches the result through s. A NaN target must win.
template <typename T>
AQUILA_HD T max_or_nan(T a, T b) {
    return (a > b || a != a) ? a : b;
}

AQUILA_HD float exponential(float x) { return expf(x); }
AQUILA_HD double exponential(double x) { return exp(x); }
AQUILA_HD float logarithm(float x) { return logf(x); }
AQUILA_HD double logarithm(double x) { return log(x); }

template <typename T>
AQUILA_HD Stats<T> merge(const Stats<T>& a, const Stats<T>& b) {
    const T m = a.m > b.m ? a.m : b.m;
    const T shift = finite_shift(m);
    return {m, a.s * exponential(a.m - shift) + b.s * exponential(b.m - shift), max_or_nan(a.t, b.t)};
}

// What the backward needs of a row, and its log-probability.
template <typename T>
struct Finished {
    T m, inverse_s, logp;
};

template <typename T>
AQUILA_HD Finished<T> finish(const Stats<T>& row, int64_t target, int64_t ignore_index, int64_t vocab_size) {
    if (target == ignore_index) return {T(0), T(0), T(0)};
    if (target < 0 || target >= vocab_size) return {row.m, T(1) / row.s, T(NAN)};
    // t − m first: with a large common offset, t − (m + log s) would cancel all the digits of log s.
    return {row.m, T(1) / row.s, (row.t - row.m) - logarithm(row.s)};
}

}  // namespace aquila

#endif
