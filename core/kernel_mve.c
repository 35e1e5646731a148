/* The arithmetic on a Cortex-M55, whose vectors (MVE) have 16 lanes of 8 bits or 4 of 32. */
#if defined(__OPTIMIZE_SIZE__) && !defined(__clang__)
#pragma GCC optimize("O2") /* most of a step's time is spent here, and little of the size */
#endif
#include <arm_mve.h>
#include <string.h>

#include "fixed.h"
#include "parts.h"

enum { ROWS = 4, LANES = 16, WORDS = 4, AT_ONCE = 32 };

const uint32_t gruard_layout = GRUARD_ROWS;

uint32_t gruard_weight_bytes(uint32_t inputs, uint32_t outputs) { return inputs * outputs; }

/* gruard_halve_away of four values by a shift that is not 0; `down` is -shift, four times. */
static inline int32x4_t halve_away(int32x4_t value, int32x4_t down) {
    return vrshlq_s32(vaddq_s32(value, vshrq_n_s32(value, 31)), down);
}

/* gruard_scale of four values. */
static inline int32x4_t scaled(int32x4_t value, int32_t multiplier, int32_t shift) {
    if (shift > 0) value = vshlq_s32(value, vdupq_n_s32(shift));
    value = vqrdmulhq_n_s32(value, multiplier);
    return shift < 0 ? halve_away(value, vdupq_n_s32(shift)) : value;
}

static inline void store(int8_t *out, int32x4_t values, int32_t zero, int32_t lowest,
                         mve_pred16_t lanes) {
    const int32x4_t codes = vaddq_n_s32(values, zero);
    vstrbq_p_s32(out, vmaxq_s32(vminq_s32(codes, vdupq_n_s32(127)), vdupq_n_s32(lowest)), lanes);
}

/* From the sums of `count` rows to their codes. */
static void finish(const int32_t *sums, const gruard_integer *bias, uint32_t count,
                   const gruard_operator *o, int8_t *output) {
    const int32_t multiplier = o->multiplier, zero = o->out_zero, lowest = o->lowest;
    const int32x4_t up = vdupq_n_s32(o->shift > 0 ? o->shift : 0);
    const int32x4_t down = vdupq_n_s32(o->shift < 0 ? o->shift : 0);
    for (uint32_t i = 0; i < count; i += WORDS) {
        const mve_pred16_t lanes = vctp32q(count - i);
        const int32x4_t whole = vaddq_s32(vldrwq_z_s32(sums + i, lanes),
                                          vldrwq_z_s32((const int32_t *)bias + i, lanes));
        const int32x4_t sum = vshlq_s32(whole, up);
        const int32x4_t code = vrshlq_s32(vqrdmulhq_n_s32(sum, multiplier), down); /* ties upward */
        store(output + i, code, zero, lowest, lanes);
    }
}

/* Four rows' sums with one input. */
static inline void sum_four(const int8_t *x, uint32_t inputs, const int8_t *weights,
                            int32_t *sums) {
    const uint32_t tail = inputs % LANES;
    const int8_t *a = weights, *b = a + inputs, *c = b + inputs, *d = c + inputs;
    int32_t sum_a = 0, sum_b = 0, sum_c = 0, sum_d = 0;
    for (uint32_t i = inputs / LANES; i > 0; i--) {
        const int8x16_t sixteen = vldrbq_s8(x);
        sum_a = vmladavaq_s8(sum_a, sixteen, vldrbq_s8(a));
        sum_b = vmladavaq_s8(sum_b, sixteen, vldrbq_s8(b));
        sum_c = vmladavaq_s8(sum_c, sixteen, vldrbq_s8(c));
        sum_d = vmladavaq_s8(sum_d, sixteen, vldrbq_s8(d));
        x += LANES, a += LANES, b += LANES, c += LANES, d += LANES;
    }
    if (tail) { /* the other lanes are zero */
        const mve_pred16_t lanes = vctp8q(tail);
        const int8x16_t rest = vldrbq_z_s8(x, lanes);
        sum_a = vmladavaq_s8(sum_a, rest, vldrbq_z_s8(a, lanes));
        sum_b = vmladavaq_s8(sum_b, rest, vldrbq_z_s8(b, lanes));
        sum_c = vmladavaq_s8(sum_c, rest, vldrbq_z_s8(c, lanes));
        sum_d = vmladavaq_s8(sum_d, rest, vldrbq_z_s8(d, lanes));
    }
    sums[0] = sum_a, sums[1] = sum_b, sums[2] = sum_c, sums[3] = sum_d;
}

static int32_t sum_one(const int8_t *x, uint32_t inputs, const int8_t *weights) {
    int32_t sum = 0;
    for (uint32_t i = 0; i < inputs; i += LANES) {
        const mve_pred16_t lanes = vctp8q(inputs - i);
        sum = vmladavaq_s8(sum, vldrbq_z_s8(x + i, lanes), vldrbq_z_s8(weights + i, lanes));
    }
    return sum;
}

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    int32_t sums[AT_ONCE];
    for (uint32_t row = 0; row < o->count; row += AT_ONCE) {
        const uint32_t left = o->count - row, rows = left < AT_ONCE ? left : AT_ONCE;
        uint32_t k = 0;
        for (; k + ROWS <= rows; k += ROWS, weights += ROWS * o->inputs)
            sum_four(input, o->inputs, weights, sums + k);
        for (; k < rows; k++, weights += o->inputs)
            sums[k] = sum_one(input, o->inputs, weights);
        finish(sums, bias + row, rows, o, output + row);
    }
}

/* An addend, scaled. exact: the one with the larger scale, whose factor is 1/2. once: rounded by
 * the product only. */
static inline int32x4_t addend(const int8_t *codes, int32_t zero, int32_t multiplier,
                               int32_t shift, int exact, int once, mve_pred16_t lanes) {
    const int32x4_t value = vsubq_n_s32(vldrbq_z_s32(codes, lanes), zero);
    if (exact) return vshlq_n_s32(value, GRUARD_ADD_SHIFT - 1);
    if (once)
        return vqrdmulhq_n_s32(vshlq_s32(value, vdupq_n_s32(GRUARD_ADD_SHIFT + shift)), multiplier);
    const int32x4_t high = vqrdmulhq_n_s32(vshlq_n_s32(value, GRUARD_ADD_SHIFT), multiplier);
    return shift ? halve_away(high, vdupq_n_s32(shift)) : high;
}

/* Sums from `first` on, up to `end`. */
static inline __attribute__((always_inline)) void add_all(const gruard_operator *operator,
                                                          int8_t *arena, int32_t sign, int exact,
                                                          uint32_t first, uint32_t end, int once) {
    const gruard_operator o = *operator; /* no store to the arena can change it */
    for (uint32_t i = first; i < end; i += WORDS) {
        const mve_pred16_t lanes = vctp32q(end - i);
        const int32x4_t a = addend(arena + o.left + i, o.left_zero, o.left_multiplier,
                                   o.left_shift, exact, once, lanes);
        const int32x4_t b = addend(arena + o.right + i, o.right_zero, o.right_multiplier,
                                   o.right_shift, 0, once, lanes);
        const int32x4_t sum = sign > 0 ? vaddq_s32(a, b) : vsubq_s32(a, b);
        store(arena + o.out + i, scaled(sum, o.multiplier, o.shift), o.out_zero, -128, lanes);
    }
}

void gruard_add(const gruard_operator *o, int8_t *arena, int32_t sign) {
    const uint32_t once = gruard_rounded_once(o->count, sign);
    const int exact = o->left_multiplier == 1 << 30 && o->left_shift == 0;
    if (exact) add_all(o, arena, 1, 1, 0, once, 1);
    else add_all(o, arena, 1, 0, 0, once, 1);
    add_all(o, arena, sign, 0, once, o->count, 0);
}

void gruard_linear(const gruard_operator *operator, int8_t *arena, const int8_t *table) {
    const gruard_operator o = *operator;
    int8_t *const out = arena + o.out;
    for (uint32_t i = 0; i < o.count; i += WORDS) {
        const mve_pred16_t lanes = vctp32q(o.count - i);
        int32x4_t sum = vdupq_n_s32(o.multiplier);
        sum = vmlaq_n_s32(sum, vldrbq_z_s32(arena + o.left + i, lanes), o.left_multiplier);
        sum = vmlaq_n_s32(sum, vldrbq_z_s32(arena + o.right + i, lanes), o.right_multiplier);
        store(out + i, vshrq_n_s32(sum, GRUARD_LINEAR_SHIFT), 0, -128, lanes);
    }
    if (table) gruard_look_up(out, out, o.count, table);
}

void gruard_multiply(const gruard_operator *operator, int8_t *arena) {
    const gruard_operator o = *operator;
    for (uint32_t i = 0; i < o.count; i += WORDS) {
        const mve_pred16_t lanes = vctp32q(o.count - i);
        const int32x4_t a = vsubq_n_s32(vldrbq_z_s32(arena + o.left + i, lanes), o.left_zero);
        const int32x4_t b = vsubq_n_s32(vldrbq_z_s32(arena + o.right + i, lanes), o.right_zero);
        store(arena + o.out + i, scaled(vmulq_s32(a, b), o.multiplier, o.shift), o.out_zero, -128,
              lanes);
    }
}

void gruard_look_up(const int8_t *codes, int8_t *out, uint32_t count, const int8_t *table) {
    for (uint32_t i = 0; i < count; i += LANES) {
        const mve_pred16_t lanes = vctp8q(count - i);
        const uint8x16_t places = veorq_u8(vreinterpretq_u8_s8(vldrbq_z_s8(codes + i, lanes)),
                                           vdupq_n_u8(128));
        vstrbq_p_s8(out + i, vldrbq_gather_offset_z_s8(table, places, lanes), lanes);
    }
}
