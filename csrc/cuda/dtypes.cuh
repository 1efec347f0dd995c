// The dtypes of logits: how 32-bit words of them become floats and back.

#ifndef AQUILA_CUDA_DTYPES_CUH
#define AQUILA_CUDA_DTYPES_CUH

#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "aquila/api.h"

namespace aquila::cuda {

__device__ inline float float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

__device__ inline uint32_t bits_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

struct Float32 {
    using Element = float;
    static constexpr int per_word = 1;
    static constexpr uint32_t minus_infinity = 0xff800000u;  // in every element of a word

    __device__ static float widen(Element x) { return x; }
    __device__ static Element narrow(float x) { return x; }
    __device__ static void unpack(uint32_t word, float* x) { x[0] = float_of_bits(word); }
    __device__ static uint32_t pack(const float* x) { return bits_of_float(x[0]); }
};

struct BFloat16 {
    using Element = uint16_t;
    static constexpr int per_word = 2;
    static constexpr uint32_t minus_infinity = 0xff80ff80u;

    __device__ static float widen(Element x) { return float_of_bits(static_cast<uint32_t>(x) << 16); }
    __device__ static void unpack(uint32_t word, float* x) {
        x[0] = float_of_bits(word << 16);
        x[1] = float_of_bits(word & 0xffff0000u);
    }
#if defined(__CUDA_ARCH__)
    __device__ static Element narrow(float x) {
        uint16_t y;
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
        return y;
    }
    __device__ static uint32_t pack(const float* x) {
        uint32_t word;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(x[1]), "f"(x[0]));
        return word;
    }
#else
    __device__ static Element narrow(float x) {
        if (x != x) return 0x7fff;
        const uint32_t bits = bits_of_float(x);
        return static_cast<Element>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
    __device__ static uint32_t pack(const float* x) {
        return narrow(x[0]) | static_cast<uint32_t>(narrow(x[1])) << 16;
    }
#endif
};

struct Float16 {
    using Element = uint16_t;
    static constexpr int per_word = 2;
    static constexpr uint32_t minus_infinity = 0xfc00fc00u;

    __device__ static void unpack(uint32_t word, float* x) {
        x[0] = widen(static_cast<Element>(word));
        x[1] = widen(static_cast<Element>(word >> 16));
    }
#if defined(__CUDA_ARCH__)
    __device__ static float widen(Element x) {
        float y;
        asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
        return y;
    }
    __device__ static Element narrow(float x) {
        uint16_t y;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
        return y;
    }
    __device__ static uint32_t pack(const float* x) {
        uint32_t word;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(x[1]), "f"(x[0]));
        return word;
    }
#else
    __device__ static float widen(Element x) {
        const uint32_t sign = static_cast<uint32_t>(x & 0x8000u) << 16, magnitude = x & 0x7fffu;
        if (magnitude >= 0x7c00u) return float_of_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
        // Moving the exponent field as it stands is off by 2^112, for subnormals as well.
        return float_of_bits(sign | bits_of_float(float_of_bits(magnitude << 13) * 0x1p112f));
    }
    __device__ static Element narrow(float x) {
        const uint32_t bits = bits_of_float(x), magnitude = bits & 0x7fffffffu;
        const uint32_t sign = bits >> 16 & 0x8000u;
        if (x != x) return 0x7fff;
        if (magnitude >= 0x477ff000u) return static_cast<Element>(sign | 0x7c00u);  // 65520 rounds up, out of range
        if (magnitude < 0x38800000u) {                                               // subnormal: units of 2^−24
            return static_cast<Element>(sign | static_cast<uint32_t>(nearbyintf(float_of_bits(magnitude) * 0x1p24f)));
        }
        return static_cast<Element>(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
    }
    __device__ static uint32_t pack(const float* x) {
        return narrow(x[0]) | static_cast<uint32_t>(narrow(x[1])) << 16;
    }
#endif
};

// Calls `body` with the dtype's struct.
template <typename Body>
int by_dtype(int dtype, Body body) {
    switch (dtype) {
        case AQUILA_FLOAT32: return body(Float32());
        case AQUILA_BFLOAT16: return body(BFloat16());
        case AQUILA_FLOAT16: return body(Float16());
        default: return AQUILA_BAD_DTYPE;
    }
}

}  // namespace aquila::cuda

#endif
