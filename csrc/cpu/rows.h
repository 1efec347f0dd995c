// The row kernels, once for every instruction set that the build knows, behind one table.

#ifndef AQUILA_CPU_ROWS_H
#define AQUILA_CPU_ROWS_H

#include <cstdint>

#include "aquila/online_softmax.h"

namespace aquila {

// Work on one row of `columns` logits. `target` is the target's column, or −1 where it lies in another shard.
template <typename T>
struct RowKernels {
    Stats<T> (*stats)(const void* row, int64_t columns, int64_t target);
    // out[v] = c (1[v = target] − exp(row[v] − m) · inverse_s); `out` may be `row`.
    void (*gradient)(const void* row, void* out, int64_t columns, int64_t target, T c, T m, T inverse_s);
};

struct InstructionSet {
    const char* name;
    RowKernels<float> float32, bfloat16, float16;
};

namespace avx512 {
extern const InstructionSet kernels;
}
namespace avx2 {
extern const InstructionSet kernels;
}
namespace baseline {
extern const InstructionSet kernels;
}

const InstructionSet& instruction_set();

// Gradient checks only: plain loops, no need of speed.
extern const RowKernels<double> float64_kernels;

}  // namespace aquila

#endif
