// Losses on a pair of answers, chosen (c) and rejected (r), and their derivatives, in closed form.
//
// With L a sequence's summed log-prob, R the reference model's, n its number of tokens, ρ = L − R:
//
//   sigmoid   h = β (ρ_c − ρ_r);  −(1−ε) log σ(h) − ε log σ(−h)                  DPO, arXiv 2305.18290 eq. 7; ε: cDPO
//   robust    same h;  (−(1−ε) log σ(h) + ε log σ(−h)) / (1 − 2ε)                rDPO, arXiv 2403.00409
//   hinge     same h;  max(0, 1 − h)                                             SLiC, arXiv 2305.10425
//   ipo       h = ρ_c / n_c − ρ_r / n_r;  (h − 1 / (2β))²                        IPO, arXiv 2310.12036 eq. 17
//   simpo     h = β (L_c / n_c − L_r / n_r) − γ;  −(1−ε) log σ(h) − ε log σ(−h)  SimPO, arXiv 2405.14734 eq. 6
//   orpo      a = L / n;  h = (a_c − a_r) − (log(1 − e^{a_c}) − log(1 − e^{a_r}));  −a_c − β log σ(h)
//                                                                                ORPO, arXiv 2403.07691 eq. 6, λ = β
//
// and, with an SFT term, − w · L_c / n_c beside any of them. IPO is normalised by length, as its authors have said;
// with length_normalised, so are sigmoid, robust and hinge:
//
//             h = β (ρ_c / n_c − ρ_r / n_r)                                    Tülu 3, arXiv 2411.15124; TRL: sigmoid_norm

#ifndef AQUILA_PREFERENCE_H
#define AQUILA_PREFERENCE_H

#include <math.h>
#include <stdint.h>

#include "aquila/api.h"
#include "aquila/platform.h"

namespace aquila {

// One answer: the sum over its tokens, the reference's sum, the number of tokens that count.
struct Answer {
    double logps, reference;
    int64_t length;
};

struct PairLoss {
    double loss;
    double logit;                                  // h
    double chosen_coefficient, rejected_coefficient;  // ∂ loss / ∂ L_c, ∂ loss / ∂ L_r
    double chosen_reward, rejected_reward;         // β ρ, of the whole answer, or β L / n where there is no reference
};

AQUILA_HD double log_sigmoid(double h) { return (h < 0 ? h : 0.0) - log1p(exp(-fabs(h))); }

AQUILA_HD double sigmoid(double h) {
    const double e = exp(-fabs(h));
    return (h >= 0 ? 1.0 : e) / (1.0 + e);
}

// log(1 − e^a) for a ≤ 0, without cancellation at either end (Mächler 2012).
AQUILA_HD double log1m_exp(double a) { return a > -0.6931471805599453 ? log(-expm1(a)) : log1p(-exp(a)); }

// A mean log-prob of 0 has infinite odds, and one of a few ulp a gradient to match: both count as −1e-6.
AQUILA_HD double below_certain(double a) { return a > -1e-6 ? -1e-6 : a; }

// 1 / n; an empty answer has no tokens to move, so its weight is that of one.
AQUILA_HD double inverse_length(const Answer& answer) { return 1.0 / (double)(answer.length > 0 ? answer.length : 1); }

AQUILA_HD bool has_reference(int loss) { return loss != AQUILA_SIMPO && loss != AQUILA_ORPO; }

AQUILA_HD PairLoss pair_loss(const Answer& chosen, const Answer& rejected, const aquila_preference_options& options) {
    const double beta = options.beta, smoothing = options.label_smoothing;
    const double chosen_weight = inverse_length(chosen), rejected_weight = inverse_length(rejected);
    const double chosen_ratio = chosen.logps - chosen.reference, rejected_ratio = rejected.logps - rejected.reference;
    PairLoss pair = {};
    double slope = 0;  // ∂ loss / ∂ h
    switch (options.loss) {
        case AQUILA_IPO: {
            pair.logit = chosen_ratio * chosen_weight - rejected_ratio * rejected_weight;
            const double distance = pair.logit - 1.0 / (2.0 * beta);
            pair.loss = distance * distance;
            slope = 2.0 * distance;
            pair.chosen_coefficient = slope * chosen_weight;
            pair.rejected_coefficient = -slope * rejected_weight;
            break;
        }
        case AQUILA_SIMPO:
            pair.logit = beta * (chosen.logps * chosen_weight - rejected.logps * rejected_weight) - options.margin;
            pair.loss = -(1.0 - smoothing) * log_sigmoid(pair.logit) - smoothing * log_sigmoid(-pair.logit);
            slope = -(1.0 - smoothing) * sigmoid(-pair.logit) + smoothing * sigmoid(pair.logit);
            pair.chosen_coefficient = slope * beta * chosen_weight;
            pair.rejected_coefficient = -slope * beta * rejected_weight;
            break;
        case AQUILA_ORPO: {
            const double a = below_certain(chosen.logps * chosen_weight);
            const double b = below_certain(rejected.logps * rejected_weight);
            pair.logit = (a - b) - (log1m_exp(a) - log1m_exp(b));
            pair.loss = -a - beta * log_sigmoid(pair.logit);
            slope = -beta * sigmoid(-pair.logit);
            // ∂ (a − log(1 − e^a)) / ∂ a = 1 / (1 − e^a)
            pair.chosen_coefficient = (slope / -expm1(a) - 1.0) * chosen_weight;
            pair.rejected_coefficient = -slope / -expm1(b) * rejected_weight;
            break;
        }
        default: {
            const double chosen_share = options.length_normalised ? chosen_weight : 1.0;
            const double rejected_share = options.length_normalised ? rejected_weight : 1.0;
            pair.logit = beta * (chosen_ratio * chosen_share - rejected_ratio * rejected_share);
            const double wins = log_sigmoid(pair.logit), loses = log_sigmoid(-pair.logit);
            if (options.loss == AQUILA_HINGE) {
                const double beyond = pair.logit != pair.logit ? pair.logit : 0.0;  // NaN stays NaN
                pair.loss = pair.logit < 1.0 ? 1.0 - pair.logit : beyond;
                slope = pair.logit < 1.0 ? -1.0 : beyond;
            } else if (options.loss == AQUILA_ROBUST) {
                const double scale = 1.0 / (1.0 - 2.0 * smoothing);
                pair.loss = (-(1.0 - smoothing) * wins + smoothing * loses) * scale;
                slope = (-(1.0 - smoothing) * sigmoid(-pair.logit) - smoothing * sigmoid(pair.logit)) * scale;
            } else {
                pair.loss = -(1.0 - smoothing) * wins - smoothing * loses;
                slope = -(1.0 - smoothing) * sigmoid(-pair.logit) + smoothing * sigmoid(pair.logit);
            }
            pair.chosen_coefficient = slope * beta * chosen_share;
            pair.rejected_coefficient = -slope * beta * rejected_share;
        }
    }
    if (options.sft_weight != 0.0) {
        pair.loss -= options.sft_weight * chosen.logps * chosen_weight;
        pair.chosen_coefficient -= options.sft_weight * chosen_weight;
    }
    const bool reference = has_reference(options.loss);
    pair.chosen_reward = beta * (reference ? chosen_ratio : chosen.logps * chosen_weight);
    pair.rejected_reward = beta * (reference ? rejected_ratio : rejected.logps * rejected_weight);
    return pair;
}

// Columns of sequences [S, 3].
enum SequenceColumn { SEQUENCE_LOGPS, SEQUENCE_REWARD, SEQUENCE_LENGTH };
// Columns of pairs [P, 3].
enum PairColumn { PAIR_LOSS, PAIR_LOGIT, PAIR_MARGIN };
// Entries of totals [8]: sums over pairs, lengths over all sequences.
enum Total {
    TOTAL_LOSS,
    TOTAL_CHOSEN_REWARD,
    TOTAL_REJECTED_REWARD,
    TOTAL_MARGIN,
    TOTAL_ACCURACY,  // pairs whose margin is above 0
    TOTAL_CHOSEN_LOGPS,
    TOTAL_REJECTED_LOGPS,
    TOTAL_TOKENS
};

}  // namespace aquila

#endif
