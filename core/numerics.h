/* Float32 arithmetic in one fixed order: the C side of edge_runtime.numerics.
 *
 * Sums run first to last, every product is rounded before it is added (compile with
 * -ffp-contract=off), and the only transcendental function is a table.
 */
#ifndef GRUARD_NUMERICS_H
#define GRUARD_NUMERICS_H

#include "exact.h"

#include <stdint.h>
#include <string.h>

#include "constants.h"
#include "gruard_detector.h"

static inline float gruard_at_least(float value, float low) { return value > low ? value : low; }
static inline float gruard_at_most(float value, float high) { return value < high ? value : high; }

static inline float gruard_clip(float value, float bound) {
    return gruard_at_most(gruard_at_least(value, -bound), bound);
}

static inline float gruard_abs(float value) { return __builtin_fabsf(value); }

/* Correctly rounded; an instruction wherever there is an FPU (compile with -fno-math-errno). */
static inline float gruard_root(float value) { return __builtin_sqrtf(value); }

/* Round half to even; |value| < 2^22. */
static inline float gruard_rint(float value) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: the sum has no bits below one */
    return (value + magic) - magic;
}

/* int8 code of `value`: round half to even, clip to -128 … 127; NaN is -128. The zero point is a
 * whole number, so clipping before rounding gives the same. */
static inline int8_t gruard_quantise(float value, float scale, float zero_point) {
    float code = value / scale;
    code = gruard_at_least(code, -128.0f - zero_point);
    code = gruard_at_most(code, 127.0f - zero_point);
    return (int8_t)(int32_t)(gruard_rint(code) + zero_point);
}

/* The FPU and the saturating instructions of a Cortex-M4 or later round and clip alike, except that
 * NaN becomes the zero point. */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SAT) && defined(__thumb2__) && \
    defined(__ARM_FP) && __ARM_FP & 4
#define GRUARD_ROUNDS
static inline int8_t gruard_rounded(float code, int32_t zero_point) {
    int32_t whole;
    __asm("vcvtr.s32.f32 %0, %0\nvmov %1, %0\nqadd %1, %1, %2\nssat %1, #8, %1"
          : "+t"(code), "=&r"(whole) : "r"(zero_point));
    return (int8_t)whole;
}
#endif

static inline float gruard_dequantise(int8_t code, float scale, float zero_point) {
    return ((float)code - zero_point) * scale;
}

/* Sum of products, first to last; count > 0. */
static inline float gruard_dot(const gruard_float *one, const float *other, uint32_t count) {
    float total = one[0] * other[0];
    for (uint32_t i = 1; i < count; i++) total += one[i] * other[i];
    return total;
}

static inline float gruard_sum(const gruard_float *values, uint32_t count) {
    float total = values[0];
    for (uint32_t i = 1; i < count; i++) total += values[i];
    return total;
}

/* Natural logarithm of a finite value >= 1, linear between the 257 nodes of `table`. */
static inline float gruard_log(float value, const gruard_float *table) {
    const int32_t below = (1 << GRUARD_INDEX_SHIFT) - 1; /* the bits below the index */
    const float unit = 1.0f / (float)(1 << GRUARD_INDEX_SHIFT);
    int32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits); /* never a call */
    const int32_t exponent = (bits >> GRUARD_MANTISSA_BITS) - 127;
    const uint32_t index = ((uint32_t)bits >> GRUARD_INDEX_SHIFT) & (GRUARD_LOG_TABLE_SIZE - 1u);
    const float fraction = (float)(bits & below) * unit;
    const float low = table[index];
    const float within = low + fraction * (table[index + 1] - low);
    return (float)exponent * GRUARD_LN2 + within;
}

#endif
