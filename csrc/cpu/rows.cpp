// Row kernels for one instruction set. The build compiles this file once for each, with its -march and its name in
// AQUILA_INSTRUCTION_SET.

#include "rows.h"

#include "vectors.h"

#define AQUILA_TEXT_(x) #x
#define AQUILA_TEXT(x) AQUILA_TEXT_(x)

namespace aquila::AQUILA_INSTRUCTION_SET {
namespace {

constexpr int BATCH = 8;  // vectors between two looks at the maximum

// Running statistics of LANES interleaved sub-rows: no lane waits for another before the end of the row.
struct LaneStats {
    Floats m = all(-INFINITY), shift = {}, s = {};

    template <int COUNT>
    void add(const Floats (&x)[COUNT]) {
        Floats top = m;
        for (int i = 0; i < COUNT; ++i) top = larger(x[i], top);
        if (any(top > m)) {
            m = top;
            const Floats finite = m == -INFINITY ? Floats{} : m;
            s *= exp_nonpositive(minus(shift, finite));
            shift = finite;
        }
        s += sum_of_exponentials<COUNT>(x);
    }

private:
    // A tree, then one addition to the running sum: its rounding errors stay few.
    template <int COUNT>
    Floats sum_of_exponentials(const Floats* x) const {
        if constexpr (COUNT == 1)
            return exp_nonpositive(x[0] - shift);
        else
            return sum_of_exponentials<COUNT / 2>(x) + sum_of_exponentials<COUNT / 2>(x + COUNT / 2);
    }
    // s is 0 where m was −inf, and the old shift may then lie above the new one: e^x of a positive x is not wanted.
    Floats minus(Floats before, Floats after) const {
        const Floats x = before - after;
        return x > 0.0f ? Floats{} : x;
    }
};

template <typename Dtype>
Stats<float> stats(const void* data, int64_t columns, int64_t target) {
    using Element = typename Dtype::Element;
    const Element* row = static_cast<const Element*>(data);
    LaneStats lanes;
    int64_t v = 0;
    for (; v + BATCH * LANES <= columns; v += BATCH * LANES) {
        Floats x[BATCH];
        for (int i = 0; i < BATCH; ++i) x[i] = Dtype::load(row + v + i * LANES);
        lanes.add(x);
    }
    for (; v < columns; v += LANES) {
        Floats x[1];
        if (v + LANES <= columns) {
            x[0] = Dtype::load(row + v);
        } else {
            Element rest[LANES] = {};
            std::memcpy(rest, row + v, (columns - v) * sizeof(Element));
            x[0] = Dtype::load(rest);
            for (int i = int(columns - v); i < LANES; ++i) x[0][i] = -INFINITY;
        }
        lanes.add(x);
    }
    Stats<float> all_lanes = no_columns<float>();
    all_lanes.m = max_of(lanes.m);
    const float shift = finite_shift(all_lanes.m);
    const Floats below = lanes.shift - shift;
    // A lane that saw only −inf has shift 0, which may lie above.
    all_lanes.s = sum_of(lanes.s * exp_nonpositive(lanes.m == -INFINITY ? lanes.m : below));
    if (target >= 0) {
        Element one[LANES] = {row[target]};
        all_lanes.t = Dtype::load(one)[0];
    }
    return all_lanes;
}

template <typename Dtype>
void gradient(const void* data, void* output, int64_t columns, int64_t target, float c, float m, float inverse_s) {
    using Element = typename Dtype::Element;
    const Element* row = static_cast<const Element*>(data);
    Element* out = static_cast<Element*>(output);
    const float factor = -c * inverse_s;
    float target_logit = 0;
    if (target >= 0) {  // before the pass, which may overwrite it
        Element one[LANES] = {row[target]};
        target_logit = Dtype::load(one)[0];
    }
    int64_t v = 0;
#pragma GCC unroll 4
    for (; v + LANES <= columns; v += LANES)
        Dtype::store(out + v, exp_nonpositive(Dtype::load(row + v) - m) * factor);
    if (v < columns) {
        Element rest[LANES] = {};
        std::memcpy(rest, row + v, (columns - v) * sizeof(Element));
        Dtype::store(rest, exp_nonpositive(Dtype::load(rest) - m) * factor);
        std::memcpy(out + v, rest, (columns - v) * sizeof(Element));
    }
    if (target >= 0) {
        Element one[LANES];
        Dtype::store(one, c + exp_nonpositive(all(target_logit - m)) * factor);
        out[target] = one[0];
    }
}

}  // namespace

const InstructionSet kernels = {
    AQUILA_TEXT(AQUILA_INSTRUCTION_SET),
    {stats<Float32>, gradient<Float32>},
    {stats<BFloat16>, gradient<BFloat16>},
    {stats<Float16>, gradient<Float16>},
};

}  // namespace aquila::AQUILA_INSTRUCTION_SET
