/* Fixed-point arithmetic of TFLite's int8 kernels (gemmlowp's, double rounding).
 *
 * FULLY_CONNECTED rounds ties of its last shift upward, as tflite-runtime's built-in kernels do on
 * x86-64 and Arm.
 */
#ifndef GRUARD_FIXED_H
#define GRUARD_FIXED_H

#include <stdint.h>

#include "parts.h"

/* a + b modulo 2^32: sums of a sound program stay within 32 bits, and those of a malicious blob
 * are defined, too. */
static inline int32_t gruard_plus(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a + (uint32_t)b);
}

/* Saturating rounding doubling high multiply; multiplier > 0, so that nothing saturates. */
static inline int32_t gruard_high(int32_t value, int32_t multiplier) {
    /* Only the low 32 bits are kept, so that the shift may be a logical one. */
    return (int32_t)(uint32_t)((uint64_t)((int64_t)value * multiplier + (1 << 30)) >> 31);
}

/* gruard_high of a value below 2^30, doubled: one instruction on many processors. */
static inline int32_t gruard_high_of_double(int32_t doubled, int32_t multiplier) {
    return (int32_t)(((int64_t)doubled * multiplier + (1ll << 31)) >> 32);
}

/* value / 2^shift, ties away from zero. */
static inline int32_t gruard_halve_away(int32_t value, int32_t shift) {
    return shift ? gruard_plus(value, (value >> 31) + (1 << (shift - 1))) >> shift : value;
}

/* value / 2^shift, ties upward. */
static inline int32_t gruard_halve_up(int32_t value, int32_t shift) {
    return shift ? gruard_plus(value, 1 << (shift - 1)) >> shift : value;
}

/* value * multiplier * 2^(shift - 31). If shift > 0, the blob's writer checks value * 2^shift. */
static inline int32_t gruard_scale(int32_t value, int32_t multiplier, int32_t shift) {
    if (shift > 0) return gruard_high((int32_t)((uint32_t)value << shift), multiplier);
    return gruard_halve_away(gruard_high(value, multiplier), -shift);
}

static inline int32_t gruard_scale_product(int32_t value, int32_t multiplier, int32_t shift) {
    if (shift > 0) return gruard_high((int32_t)((uint32_t)value << shift), multiplier);
    return gruard_halve_up(gruard_high(value, multiplier), -shift);
}

/* Whether rounding and zero point can be added before the last shift, which goes to the right: so
 * it is in every network of a conversion. */
static inline int gruard_is_plain(int32_t shift) { return shift < 0 && shift >= -22; }

/* The half that rounds ties upward and the zero point, before that shift. */
static inline int32_t gruard_before_shift(const gruard_operator *o) {
    return (int32_t)((1u << (-o->shift - 1)) + ((uint32_t)o->out_zero << -o->shift));
}

/* TFLite shifts both addends to the left (GRUARD_ADD_SHIFT), scales them, and adds. The vector
 * code of its ADD takes whole groups (GRUARD_ADD_GROUP) and rounds an addend once; what is left
 * over, and SUB, twice. */

/* How many of `count` sums the vector code computes. */
static inline uint32_t gruard_rounded_once(uint32_t count, int32_t sign) {
    return sign > 0 ? count / GRUARD_ADD_GROUP * GRUARD_ADD_GROUP : 0;
}

static inline int32_t gruard_addend_once(int32_t value, int32_t multiplier, int32_t shift) {
    return gruard_high(value * (1 << (GRUARD_ADD_SHIFT + shift)), multiplier);
}

static inline int32_t gruard_addend_twice(int32_t value, int32_t multiplier, int32_t shift) {
    return gruard_halve_away(gruard_high(value * (1 << GRUARD_ADD_SHIFT), multiplier), -shift);
}

static inline int32_t gruard_add_once(int32_t left, int32_t right, const gruard_operator *o) {
    const int32_t sum =
        gruard_addend_once(left - o->left_zero, o->left_multiplier, o->left_shift) +
        gruard_addend_once(right - o->right_zero, o->right_multiplier, o->right_shift);
    return gruard_plus(gruard_scale(sum, o->multiplier, o->shift), o->out_zero);
}

static inline int32_t gruard_add_twice(int32_t left, int32_t right, int32_t sign,
                                       const gruard_operator *o) {
    const int32_t sum =
        gruard_addend_twice(left - o->left_zero, o->left_multiplier, o->left_shift) + sign *
        gruard_addend_twice(right - o->right_zero, o->right_multiplier, o->right_shift);
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

/* gruard_add, one value after the other. */
static inline void gruard_add_exactly(const gruard_operator *o, int8_t *arena, int32_t sign) {
    const uint32_t once = gruard_rounded_once(o->count, sign);
    for (uint32_t i = 0; i < o->count; i++) {
        const int32_t left = arena[o->left + i], right = arena[o->right + i];
        const int32_t code = i < once ? gruard_add_once(left, right, o)
                                      : gruard_add_twice(left, right, sign, o);
        arena[o->out + i] = gruard_narrow(code, -128);
    }
}

/* A sum in its linear form: gruard_linear. */
static inline int8_t gruard_linear_code(int32_t left, int32_t right, const gruard_operator *o) {
    const int32_t sum = left * o->left_multiplier + right * o->right_multiplier + o->multiplier;
    return gruard_narrow(sum >> GRUARD_LINEAR_SHIFT, -128);
}

#endif
