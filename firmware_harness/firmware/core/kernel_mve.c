/* The arithmetic on a Cortex-M55, whose vectors (MVE) have 16 lanes of 8 bits or 4 of 32. */
#include <arm_mve.h>
#include <string.h>

#include "fixed.h"
#include "parts.h"

enum { ROWS = 4, LANES = 16, WORDS = 4 };

const uint32_t gruard_layout = GRUARD_ROWS;

uint32_t gruard_weight_bytes(uint32_t inputs, uint32_t outputs) { return inputs * outputs; }

/* gruard_halve_away of four values; shift > 0. */
static inline int32x4_t halve_away(int32x4_t value, int32x4_t down) {
    return vrshlq_s32(vaddq_s32(value, vshrq_n_s32(value, 31)), down);
}

/* gruard_scale of four values, plus the zero point, as codes. */
static inline int32x4_t scaled(int32x4_t value, int32_t multiplier, int32_t shift, int32_t zero) {
    if (shift > 0) value = vshlq_s32(value, vdupq_n_s32(shift));
    value = vqrdmulhq_n_s32(value, multiplier);
    if (shift < 0) value = halve_away(value, vdupq_n_s32(shift));
    return vaddq_n_s32(value, zero);
}

static inline void store(int8_t *out, int32x4_t codes, int32_t lowest, mve_pred16_t lanes) {
    codes = vmaxq_s32(vminq_s32(codes, vdupq_n_s32(127)), vdupq_n_s32(lowest));
    vstrbq_p_s32(out, codes, lanes);
}

static void finish_rows(int32x4_t sums, uint32_t count, const gruard_operator *o, int8_t *out) {
#ifdef GRUARD_TFLM
    sums = scaled(sums, o->multiplier, o->shift, o->out_zero);
#else
    if (o->shift > 0) sums = vshlq_s32(sums, vdupq_n_s32(o->shift));
    sums = vqrdmulhq_n_s32(sums, o->multiplier);
    if (o->shift < 0) sums = vrshlq_s32(sums, vdupq_n_s32(o->shift)); /* ties upward */
    sums = vaddq_n_s32(sums, o->out_zero);
#endif
    store(out, sums, o->lowest, vctp32q(count));
}

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    const uint32_t inputs = o->inputs;
    for (uint32_t row = 0; row < o->count; row += ROWS) {
        const uint32_t left = o->count - row, rows = left < ROWS ? left : ROWS;
        /* A row that is not there is computed as the last one is, and thrown away. */
        const int8_t *a = weights + row * inputs, *b = rows > 1 ? a + inputs : a;
        const int8_t *c = rows > 2 ? b + inputs : b, *d = rows > 3 ? c + inputs : c;
        int32_t sums[ROWS] = {0, 0, 0, 0};
        for (uint32_t i = 0; i < inputs; i += LANES) {
            const mve_pred16_t lanes = vctp8q(inputs - i);
            const int8x16_t x = vldrbq_z_s8(input + i, lanes);
            sums[0] = vmladavaq_s8(sums[0], x, vldrbq_z_s8(a + i, lanes));
            sums[1] = vmladavaq_s8(sums[1], x, vldrbq_z_s8(b + i, lanes));
            sums[2] = vmladavaq_s8(sums[2], x, vldrbq_z_s8(c + i, lanes));
            sums[3] = vmladavaq_s8(sums[3], x, vldrbq_z_s8(d + i, lanes));
        }
        const int32x4_t wide = vaddq_s32(
            vldrwq_s32(sums), vldrwq_z_s32((const int32_t *)bias + row, vctp32q(rows)));
        finish_rows(wide, rows, o, output + row);
    }
}

static inline int32x4_t addend(const int8_t *codes, int32_t zero, int32_t multiplier,
                               int32_t shift, mve_pred16_t lanes) {
    int32x4_t value = vsubq_n_s32(vldrbq_z_s32(codes, lanes), zero);
    value = vqrdmulhq_n_s32(vshlq_n_s32(value, 20), multiplier);
    return shift ? halve_away(value, vdupq_n_s32(shift)) : value;
}

void gruard_add(const gruard_operator *o, int8_t *arena, int32_t sign) {
    for (uint32_t i = 0; i < o->count; i += WORDS) {
        const mve_pred16_t lanes = vctp32q(o->count - i);
        const int32x4_t a = addend(arena + o->left + i, o->left_zero, o->left_multiplier,
                                   o->left_shift, lanes);
        const int32x4_t b = addend(arena + o->right + i, o->right_zero, o->right_multiplier,
                                   o->right_shift, lanes);
        const int32x4_t sum = sign > 0 ? vaddq_s32(a, b) : vsubq_s32(a, b);
        store(arena + o->out + i, scaled(sum, o->multiplier, o->shift, o->out_zero), -128, lanes);
    }
}

void gruard_multiply(const gruard_operator *o, int8_t *arena) {
    for (uint32_t i = 0; i < o->count; i += WORDS) {
        const mve_pred16_t lanes = vctp32q(o->count - i);
        const int32x4_t a = vsubq_n_s32(vldrbq_z_s32(arena + o->left + i, lanes), o->left_zero);
        const int32x4_t b = vsubq_n_s32(vldrbq_z_s32(arena + o->right + i, lanes), o->right_zero);
        const int32x4_t product = vmulq_s32(a, b);
        store(arena + o->out + i, scaled(product, o->multiplier, o->shift, o->out_zero), -128,
              lanes);
    }
}
