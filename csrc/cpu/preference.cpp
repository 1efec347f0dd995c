// Losses on pairs of answers on the CPU. A pair costs microseconds: no threads.

#include <algorithm>

#include "aquila/api.h"
#include "aquila/preference.h"

namespace aquila {
namespace {

template <typename T>
struct Pack {
    const T* logps;
    int64_t stride;
    const aquila_targets& targets;

    bool counts(int64_t token) const { return targets.ids[token * targets.stride] != targets.ignore_index; }
};

template <typename T>
Answer sum(const Pack<T>& pack, int64_t first, int64_t last, double reference) {
    Answer answer = {0.0, reference, 0};
    for (int64_t token = first; token < last; ++token) {
        if (!pack.counts(token)) continue;
        answer.logps += double(pack.logps[token * pack.stride]);
        ++answer.length;
    }
    return answer;
}

template <typename T>
void preference(
    const Pack<T>& pack, int64_t tokens, const int64_t* cu_seqlens, int64_t pair_count, const double* reference,
    const aquila_preference_options& options, T* coefficients, double* sequences, double* pairs, double* totals) {
    std::fill_n(coefficients, tokens, T(0));
    std::fill_n(totals, AQUILA_TOTALS, 0.0);
    for (int64_t pair = 0; pair < pair_count; ++pair) {
        const int64_t* bounds = cu_seqlens + 2 * pair;
        Answer answers[2];
        for (int side = 0; side < 2; ++side)
            answers[side] =
                sum(pack, bounds[side], bounds[side + 1], reference ? reference[2 * pair + side] : 0.0);
        const PairLoss result = pair_loss(answers[0], answers[1], options);
        const double rewards[2] = {result.chosen_reward, result.rejected_reward};
        const double slopes[2] = {result.chosen_coefficient, result.rejected_coefficient};
        for (int side = 0; side < 2; ++side) {
            for (int64_t token = bounds[side]; token < bounds[side + 1]; ++token)
                if (pack.counts(token)) coefficients[token] = T(slopes[side]);
            double* row = sequences + (2 * pair + side) * AQUILA_SEQUENCE_COLUMNS;
            row[SEQUENCE_LOGPS] = answers[side].logps;
            row[SEQUENCE_REWARD] = rewards[side];
            row[SEQUENCE_LENGTH] = double(answers[side].length);
        }
        double* row = pairs + pair * AQUILA_PAIR_COLUMNS;
        row[PAIR_LOSS] = result.loss;
        row[PAIR_LOGIT] = result.logit;
        row[PAIR_MARGIN] = rewards[0] - rewards[1];
        totals[TOTAL_LOSS] += result.loss;
        totals[TOTAL_CHOSEN_REWARD] += rewards[0];
        totals[TOTAL_REJECTED_REWARD] += rewards[1];
        totals[TOTAL_MARGIN] += rewards[0] - rewards[1];
        totals[TOTAL_ACCURACY] += rewards[0] > rewards[1];
        totals[TOTAL_CHOSEN_LOGPS] += answers[0].logps;
        totals[TOTAL_REJECTED_LOGPS] += answers[1].logps;
        totals[TOTAL_TOKENS] += double(answers[0].length + answers[1].length);
    }
}

}  // namespace
}  // namespace aquila

using namespace aquila;

int aquila_cpu_preference(
    const void* logps, int64_t logps_stride, int64_t tokens, const aquila_targets* targets, const int64_t* cu_seqlens,
    int64_t pair_count, const double* reference, const aquila_preference_options* options, int dtype,
    void* coefficients, double* sequences, double* pairs, double* totals) {
    if (tokens < 0 || pair_count < 0 || options->loss < AQUILA_SIGMOID || options->loss > AQUILA_ORPO)
        return AQUILA_BAD_ARGUMENT;
    auto run = [&](auto zero) {
        using T = decltype(zero);
        const Pack<T> pack = {static_cast<const T*>(logps), logps_stride, *targets};
        preference(
            pack, tokens, cu_seqlens, pair_count, reference, *options, static_cast<T*>(coefficients), sequences, pairs,
            totals);
        return AQUILA_OK;
    };
    if (dtype == AQUILA_FLOAT32) return run(float());
    if (dtype == AQUILA_FLOAT64) return run(double());
    return AQUILA_BAD_DTYPE;
}
