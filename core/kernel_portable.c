/* The arithmetic in portable C: weights [outputs][inputs], one row after the other. */
#if defined(__OPTIMIZE_SIZE__) && !defined(__clang__)
#pragma GCC optimize("O2") /* most of a step's time is spent here, and little of the size */
#endif
#include "fixed.h"
#include "parts.h"

enum { AT_ONCE = 32 };

const uint32_t gruard_layout = GRUARD_ROWS;

uint32_t gruard_weight_bytes(const gruard_operator *o) { return o->inputs * o->count; }

uint32_t gruard_biases(uint32_t outputs) { return outputs; }

/* From the sums of `count` rows to their codes; a bias contains the input's zero point. */
static void finish(const int32_t *sums, const gruard_integer *bias, uint32_t count,
                   const gruard_operator *o, int8_t *output) {
    const int32_t multiplier = o->multiplier, shift = o->shift, zero = o->out_zero;
    const int32_t lowest = o->lowest;
    if (gruard_is_plain(shift)) {
        const int32_t more = gruard_before_shift(o);
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t sum = (uint32_t)sums[i] + (uint32_t)bias[i];
            const int32_t high = gruard_high_of_double((int32_t)(sum << 1), multiplier);
            output[i] = gruard_narrow(gruard_plus(high, more) >> -shift, lowest);
        }
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const int32_t sum = gruard_plus(sums[i], bias[i]);
        const int32_t scaled = gruard_scale_product(sum, multiplier, shift);
        output[i] = gruard_narrow(gruard_plus(scaled, zero), lowest);
    }
}

static int32_t sum_one(const int8_t *input, const int8_t *weights, uint32_t inputs) {
    int32_t sum = 0;
    for (uint32_t i = 0; i < inputs; i++) sum += (int32_t)input[i] * weights[i];
    return sum;
}

#ifdef GRUARD_HOST
enum { SIDE_BY_SIDE = 1 }; /* the compiler takes many inputs of a row at once */

static inline void sum_several(const int8_t *input, const int8_t *weights, uint32_t inputs,
                               int32_t *sums) {
    *sums = sum_one(input, weights, inputs);
}
#else
/* Rows share each input, and their sums stay in registers. */
enum { SIDE_BY_SIDE = 4, UNROLLED = 8 };

static inline void sum_several(const int8_t *input, const int8_t *weights, uint32_t inputs,
                               int32_t *sums) {
    const int8_t *a = weights, *b = a + inputs, *c = b + inputs, *d = c + inputs;
    const int8_t *const end = input + inputs, *const whole = input + inputs / UNROLLED * UNROLLED;
    int32_t p = 0, q = 0, r = 0, s = 0;
    while (input < whole) {
#pragma GCC unroll 8
        for (uint32_t i = 0; i < UNROLLED; i++) {
            const int32_t x = input[i];
            p += x * a[i], q += x * b[i], r += x * c[i], s += x * d[i];
        }
        input += UNROLLED, a += UNROLLED, b += UNROLLED, c += UNROLLED, d += UNROLLED;
    }
    for (; input < end; input++)
        p += *input * *a++, q += *input * *b++, r += *input * *c++, s += *input * *d++;
    sums[0] = p, sums[1] = q, sums[2] = r, sums[3] = s;
}
#endif

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    int32_t sums[AT_ONCE];
    const uint32_t inputs = o->inputs;
    for (uint32_t row = 0; row < o->count; row += AT_ONCE) {
        const uint32_t left = o->count - row, rows = left < AT_ONCE ? left : AT_ONCE;
        uint32_t k = 0;
        for (; k + SIDE_BY_SIDE <= rows; k += SIDE_BY_SIDE, weights += SIDE_BY_SIDE * inputs)
            sum_several(input, weights, inputs, sums + k);
        for (; k < rows; k++, weights += inputs) sums[k] = sum_one(input, weights, inputs);
        finish(sums, bias + row, rows, o, output + row);
    }
}

void gruard_add(const gruard_operator *o, int8_t *arena, int32_t sign) {
    gruard_add_exactly(o, arena, sign);
}

void gruard_multiply(const gruard_operator *operator, int8_t *arena) {
    const gruard_operator o = *operator;
    const int8_t *restrict left = arena + o.left, *restrict right = arena + o.right;
    int8_t *restrict out = arena + o.out;
    if (!gruard_is_plain(o.shift)) {
        for (uint32_t i = 0; i < o.count; i++)
            out[i] = gruard_narrow(gruard_multiply_codes(left[i], right[i], &o), -128);
        return;
    }
    const int32_t more = gruard_before_shift(&o);
    for (uint32_t i = 0; i < o.count; i++) {
        const int32_t product = 2 * (left[i] - o.left_zero) * (right[i] - o.right_zero);
        const int32_t high = gruard_high_of_double(product, o.multiplier) + (product >> 31);
        out[i] = gruard_narrow(gruard_plus(high, more) >> -o.shift, -128);
    }
}

void gruard_look_up(const int8_t *codes, int8_t *out, uint32_t count, const int8_t *table) {
    const int8_t *const middle = table + 128;
    for (int8_t *const end = out + count; out < end;) *out++ = middle[*codes++];
}

void gruard_linear(const gruard_operator *operator, int8_t *arena, const int8_t *table) {
    const gruard_operator o = *operator; /* no store to the arena can change it */
    const int8_t *restrict left = arena + o.left, *restrict right = arena + o.right;
    int8_t *restrict out = arena + o.out;
    if (table)
        for (uint32_t i = 0; i < o.count; i++)
            out[i] = (table + 128)[gruard_linear_code(left[i], right[i], &o)];
    else
        for (uint32_t i = 0; i < o.count; i++) out[i] = gruard_linear_code(left[i], right[i], &o);
}
