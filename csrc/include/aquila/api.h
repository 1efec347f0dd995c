// The C API of the kernels: raw pointers, sizes, strides; no torch, no Python, no C++ types.
//
// Every function exists twice: `aquila_cpu_*` takes the number of OpenMP threads, `aquila_cuda_*` a device and its
// stream, on which it only enqueues work: it allocates nothing and never waits. Both return 0, or a code that
// `aquila_status_text` explains.
//
// Axes: N tokens (rows), V columns of this rank's vocabulary shard, S = 2P sequences in P pairs.
//
// With x the logits of one token over the whole vocabulary, y its target:
//     m = max_v x_v,   s = Σ_v exp(x_v − m),   t = x_y,   log p(y) = (t − m) − log s
// A shard yields (m, s, t) of its own columns; `merge` joins the shards of all ranks, or the splits of one.

#ifndef AQUILA_API_H
#define AQUILA_API_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum aquila_dtype { AQUILA_FLOAT32 = 0, AQUILA_BFLOAT16 = 1, AQUILA_FLOAT16 = 2, AQUILA_FLOAT64 = 3 };

// Statistics, states, log-probabilities and their gradients are float32; float64 where the logits are float64.
// float64 exists on the CPU only, to let a gradient check see past rounding.
enum aquila_status {
    AQUILA_OK = 0,
    AQUILA_BAD_DTYPE = 1,     // this function has no kernel for the dtype
    AQUILA_BAD_ARGUMENT = 2,  // a negative size, or an unknown loss type
    AQUILA_TOO_LARGE = 3,     // more rows or sequences than a CUDA grid has blocks
    AQUILA_CUDA_ERROR = 1000  // plus the cudaError_t
};

struct aquila_targets {
    const int64_t* ids;     // [N] global token ids
    int64_t stride;         // in elements
    int64_t ignore_index;   // rows with this target carry no loss: their logits are not read
};

// The first of N targets in the CPU's memory that is neither below vocab_size nor the ignored one; −1 if all are.
int64_t aquila_cpu_first_wrong_target(const struct aquila_targets* targets, int64_t rows, int64_t vocab_size);

struct aquila_logits {
    const void* data;       // [N, width], any alignment of whole elements
    int64_t row_stride;     // in elements; columns are adjacent
    int64_t rows;           // N
    int64_t columns;        // the first `columns` of a row are logits …
    int64_t width;          // … the rest, up to `width`, is vocabulary padding: never read, gradient 0
    int64_t first_column;   // the token id of column 0
    int dtype;
};

// stats [3, N]: m, s, t. A shard without the target has t = −inf; one that is −inf throughout has m = −inf, s = 0.
// Ignored rows: (−inf, 0, −inf).
int aquila_cpu_token_stats(
    const struct aquila_logits* logits, const struct aquila_targets* targets, void* stats, int threads);
int aquila_cuda_token_stats(
    const struct aquila_logits* logits, const struct aquila_targets* targets, void* stats, int device, void* stream);

// Joins stats [parts, 3, N] into `out` [3, N], which may be `parts` itself where there is one part.
// finish = 0: m, s, t of all columns together, to be merged again.
// finish = 1: m, 1/s, log p. Ignored rows get (0, 0, 0). A target outside [0, vocab_size) gets NaN.
int aquila_cpu_merge_stats(
    const void* parts, int64_t count, int64_t rows, int dtype, const struct aquila_targets* targets,
    int64_t vocab_size, int finish, void* out);
int aquila_cuda_merge_stats(
    const void* parts, int64_t count, int64_t rows, int dtype, const struct aquila_targets* targets,
    int64_t vocab_size, int finish, void* out, int device, void* stream);

// Gradient of Σ_i c_i log p_i with respect to the logits: out[i, v] = c_i (1[v = y_i] − exp(x_iv − m_i) / s_i),
// with c_i = grad[i · grad_stride] · (scale ? *scale : 1).
// `state` holds m and 1/s: the first two rows of a finished merge. Rows whose c is 0 are written as 0, unread.
// `out` [N, width] has the dtype of the logits; it may be the logits themselves.
int aquila_cpu_token_gradient(
    const struct aquila_logits* logits, const struct aquila_targets* targets, const void* state, const void* grad,
    int64_t grad_stride, const void* scale, void* out, int64_t out_row_stride, int threads);
int aquila_cuda_token_gradient(
    const struct aquila_logits* logits, const struct aquila_targets* targets, const void* state, const void* grad,
    int64_t grad_stride, const void* scale, void* out, int64_t out_row_stride, int device, void* stream);

enum aquila_preference_loss {
    AQUILA_SIGMOID = 0,  // DPO; with label_smoothing, conservative DPO
    AQUILA_ROBUST = 1,
    AQUILA_HINGE = 2,
    AQUILA_IPO = 3,
    AQUILA_SIMPO = 4,
    AQUILA_ORPO = 5
};

struct aquila_preference_options {
    int loss;
    double beta;
    double label_smoothing;  // sigmoid, robust, simpo
    double margin;           // SimPO's γ: subtracted from the logit
    double sft_weight;       // adds weight · (−Σ log p / length) of the chosen sequence
    int length_normalised;   // sigmoid, robust, hinge: log-ratios divided by length; the others have their own rule
};

// The columns of `sequences` [S, 3] and `pairs` [P, 3], and the entries of `totals` [8]: see preference.h.
#define AQUILA_SEQUENCE_COLUMNS 3
#define AQUILA_PAIR_COLUMNS 3
#define AQUILA_TOTALS 8

// Sequence 2p is the chosen answer of pair p, 2p + 1 the rejected one; tokens cu_seqlens[s] … cu_seqlens[s + 1] − 1
// are those of s, of which the ones whose target is not ignored count.
//   logps [N], and coefficients [N] = ∂ Σ_p loss_p / ∂ logps, 0 at ignored tokens: of `dtype`, float32, or float64 on
//   the CPU.
//   reference [S]: sums of the reference model's log-probs, or null for losses without a reference.
//   sequences [S, 3], pairs [P, 3], totals [8]: written whole.
//   counter: CUDA only, one zeroed uint32 of this stream; it is zero again afterwards.
// Sums run in a fixed order in double precision, the same bits every time, and stay in it: where the policy's
// log-probs are the reference's, the difference is 0 and the loss log 2 to the last bit.
int aquila_cpu_preference(
    const void* logps, int64_t logps_stride, int64_t tokens, const struct aquila_targets* targets,
    const int64_t* cu_seqlens, int64_t pair_count, const double* reference,
    const struct aquila_preference_options* options, int dtype, void* coefficients, double* sequences, double* pairs,
    double* totals);
int aquila_cuda_preference(
    const void* logps, int64_t logps_stride, int64_t tokens, const struct aquila_targets* targets,
    const int64_t* cu_seqlens, int64_t pair_count, const double* reference,
    const struct aquila_preference_options* options, int dtype, void* coefficients, double* sequences, double* pairs,
    double* totals, uint32_t* counter, int device, void* stream);

const char* aquila_status_text(int status);

// Devices that the driver shows; 0 without a driver. In a build with CUDA only, as is what the runtime says of a
// status from AQUILA_CUDA_ERROR on.
int aquila_cuda_device_count(void);
const char* aquila_cuda_error_text(int status);

// The instruction set that the CPU kernels use: "avx512", "avx2" or "baseline".
const char* aquila_cpu_instruction_set(void);
// Chooses one by name. Returns AQUILA_BAD_ARGUMENT where this machine or build lacks it.
int aquila_cpu_use_instruction_set(const char* name);

#ifdef __cplusplus
}
#endif

#endif
