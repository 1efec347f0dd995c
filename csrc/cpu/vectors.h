// Vectors of float as wide as the instruction set has them, in g++'s portable notation. (Wider ones compile, but
// comparisons on them fall apart into scalars.)
//
// Included by rows.cpp only, which is compiled once for each instruction set: hence the namespace, and no linkage.

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace aquila::AQUILA_INSTRUCTION_SET {
namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

template <typename To, typename From>
inline To bit_cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

inline Floats all(float x) { return Floats{} + x; }

// a > b ? a : b, lane by lane: b where a is NaN. One instruction where g++ would make two.
inline Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
    return Floats(_mm512_max_ps(__m512(a), __m512(b)));
#elif defined(__AVX2__)
    return Floats(_mm256_max_ps(__m256(a), __m256(b)));
#else
    return a > b ? a : b;
#endif
}

inline bool any(Ints mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask(__m512i(mask), __m512i(mask)) != 0;
#elif defined(__AVX2__)
    return _mm256_testz_si256(__m256i(mask), __m256i(mask)) == 0;
#else
    uint64_t words[2];
    std::memcpy(words, &mask, sizeof(words));
    return (words[0] | words[1]) != 0;
#endif
}

// Sixteen bits an element in memory, thirty-two in a register. g++ 12 cuts a conversion of whole vectors in halves.
inline Bits widen(const uint16_t* from) {
#if defined(__AVX512F__)
    return Bits(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(__AVX2__)
    return Bits(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
    Halves halves;
    std::memcpy(&halves, from, sizeof(halves));
    return __builtin_convertvector(halves, Bits);
#endif
}

inline void narrow(uint16_t* to, Bits bits) {
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(__m512i(bits)));
#else
    const Halves halves = __builtin_convertvector(bits, Halves);
    std::memcpy(to, &halves, sizeof(halves));
#endif
}

// The dtypes: how a vector of elements becomes floats and back. Rounding is to nearest even.
struct Float32 {
    using Element = float;
    static Floats load(const Element* from) {
        Floats x;
        std::memcpy(&x, from, sizeof(x));
        return x;
    }
    static void store(Element* to, Floats x) { std::memcpy(to, &x, sizeof(x)); }
};

struct BFloat16 {
    using Element = uint16_t;
    static Floats load(const Element* from) { return bit_cast<Floats>(widen(from) << 16); }
    static void store(Element* to, Floats x) {
        const Bits bits = bit_cast<Bits>(x);
        const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        const Bits quiet = (bits >> 16) | 0x40;  // rounding a NaN's bits could make it an infinity
        narrow(to, x == x ? rounded : quiet);
    }
};

struct Float16 {
    using Element = uint16_t;
#if defined(__AVX512F__)
    static Floats load(const Element* from) {
        return Floats(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
    }
    static void store(Element* to, Floats x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(__m512(x), _MM_FROUND_TO_NEAREST_INT));
    }
#elif defined(__AVX2__)  // with F16C, which every such machine has
    static Floats load(const Element* from) {
        return Floats(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
    }
    static void store(Element* to, Floats x) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(__m256(x), _MM_FROUND_TO_NEAREST_INT));
    }
#else
    static Floats load(const Element* from) {
        // 2^112 moves the exponent's bias from 15 to 127, subnormals included; infinity and NaN stay out of range.
        const Bits bits = widen(from);
        const Bits magnitude = (bits & 0x7fff) << 13;
        const Floats scaled = bit_cast<Floats>(magnitude) * 0x1p112f;
        const Bits special = magnitude | 0x7f800000;
        const Bits value = (bits & 0x7c00) == 0x7c00 ? special : bit_cast<Bits>(scaled);
        return bit_cast<Floats>(value | (bits & 0x8000) << 16);
    }
    static void store(Element* to, Floats x) {
        const Bits bits = bit_cast<Bits>(x);
        const Bits magnitude = bits & 0x7fffffff;
        // Normal results: shift the exponent and round the mantissa. Subnormal ones: let a float addition round.
        const Bits normal = (magnitude - (112 << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
        const Bits subnormal = bit_cast<Bits>(bit_cast<Floats>(magnitude) + 0.5f) - 0x3f000000;
        Bits value = magnitude < (113 << 23) ? subnormal : normal;
        value = magnitude >= 0x477ff000 ? Bits{} + 0x7c00 : value;
        value = magnitude > 0x7f800000 ? Bits{} + 0x7e00 : value;
        narrow(to, value | (bits >> 16 & 0x8000));
    }
#endif
};

// e^x for x ≤ 0, to 1.2e-7 relative; below 2^-126 it is 0, e^−inf included; NaN stays NaN.
inline Floats exp_nonpositive(Floats x) {
    const float round = 12582912.0f;  // 1.5 · 2^23: adding it leaves the nearest integer in the low bits
    Floats y = x * 1.44269504088896341f;
    y = larger(all(-127.0f), y);
    const Floats shifted = y + round;
    const Floats f = y - (shifted - round);  // |f| ≤ 1/2
    // 2^f, minimax over [−1/2, 1/2].
    Floats p = all(1.5403530393381610e-4f);
    p = p * f + 1.3333558146428443e-3f;
    p = p * f + 9.6181291076284772e-3f;
    p = p * f + 5.5504108664821580e-2f;
    p = p * f + 2.4022650695910072e-1f;
    p = p * f + 6.9314718055994531e-1f;
    p = p * f + 1.0f;
    // 2^-127 has no normal float: its exponent field is 0, and so is the product.
    return p * bit_cast<Floats>((bit_cast<Ints>(shifted) << 23) + (127 << 23));
}

inline float sum_of(Floats x) {
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) x[i] += x[i + width];
    return x[0];
}

inline float max_of(Floats x) {
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) x[i] = x[i] > x[i + width] ? x[i] : x[i + width];
    return x[0];
}

}  // namespace
}  // namespace aquila::AQUILA_INSTRUCTION_SET
