/* Fixed-point arithmetic of TFLite's int8 kernels (gemmlowp's, double rounding).
 *
 * FULLY_CONNECTED rounds ties of its last shift upward, as tflite-runtime's built-in kernels do on
 * x86-64 and Arm; with GRUARD_TFLM they go away from zero, as TensorFlow Lite Micro has it.
 */
#ifndef GRUARD_FIXED_H
#define GRUARD_FIXED_H

#include <stdint.h>

#include "parts.h"

/* a + b, modulo 2^32: sums of a sound program never leave 32 bits, and those of a blob that means
 * harm are defined, too. */
static inline int32_t gruard_plus(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a + (uint32_t)b);
}

/* Saturating rounding doubling high multiply; multiplier > 0, so that nothing saturates. */
static inline int32_t gruard_high(int32_t value, int32_t multiplier) {
    /* Only the low 32 bits are kept, so that the shift may be a logical one. */
    return (int32_t)(uint32_t)((uint64_t)((int64_t)value * multiplier + (1 << 30)) >> 31);
}

/* value / 2^shift, ties away from zero. */
static inline int32_t gruard_halve_away(int32_t value, int32_t shift) {
    return shift ? gruard_plus(value, (value >> 31) + (1 << (shift - 1))) >> shift : value;
}

/* value / 2^shift, ties upward. */
static inline int32_t gruard_halve_up(int32_t value, int32_t shift) {
    return shift ? gruard_plus(value, 1 << (shift - 1)) >> shift : value;
}

/* value * multiplier * 2^(shift - 31). Where shift > 0 the blob vouches for value * 2^shift. */
static inline int32_t gruard_scale(int32_t value, int32_t multiplier, int32_t shift) {
    if (shift > 0) return gruard_high((int32_t)((uint32_t)value << shift), multiplier);
    return gruard_halve_away(gruard_high(value, multiplier), -shift);
}

static inline int32_t gruard_scale_product(int32_t value, int32_t multiplier, int32_t shift) {
#ifdef GRUARD_TFLM
    return gruard_scale(value, multiplier, shift);
#else
    if (shift > 0) return gruard_high((int32_t)((uint32_t)value << shift), multiplier);
    return gruard_halve_up(gruard_high(value, multiplier), -shift);
#endif
}

/* left + sign * right as TFLite adds: both shifted to the left by 20 bits, scaled, and added. */
static inline int32_t gruard_add_codes(int32_t left, int32_t right, int32_t sign,
                                       const gruard_operator *o) {
    const int32_t a = gruard_high((left - o->left_zero) * (1 << 20), o->left_multiplier);
    const int32_t b = gruard_high((right - o->right_zero) * (1 << 20), o->right_multiplier);
    const int32_t sum = gruard_halve_away(a, -o->left_shift) +
                        sign * gruard_halve_away(b, -o->right_shift);
    return gruard_plus(gruard_scale(sum, o->multiplier, o->shift), o->out_zero);
}

static inline int32_t gruard_multiply_codes(int32_t left, int32_t right,
                                            const gruard_operator *o) {
    const int32_t product = (left - o->left_zero) * (right - o->right_zero);
    return gruard_plus(gruard_scale(product, o->multiplier, o->shift), o->out_zero);
}

static inline int8_t gruard_narrow(int32_t value, int32_t lowest) {
    if (value < lowest) value = lowest;
    return (int8_t)(value > 127 ? 127 : value);
}

#endif
