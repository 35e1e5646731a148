/* The arithmetic on a Cortex-M4, M7 or M33: SMLAD and SMMULR.
 *
 * Two rows of weights share a 16-bit lane, 256 a + b, so that one SMLAD works on two inputs of two
 * rows: t = sum x (256 a + b) and s = sum x b give both sums, a's as (t - s) / 256. Rows go in
 * groups of six, the last of them in a group of four or six; inputs are padded to a multiple of
 * eight. See edge_runtime.native.layout.
 */
#include <arm_acle.h>
#include <string.h>

#include "fixed.h"
#include "parts.h"

enum { GROUP = 6, REST = 4, STEP = 8, WIDEST = 512, SAFE_SHIFT = 22 };

const uint32_t gruard_layout = GRUARD_PAIRS;

static uint32_t padded_inputs(uint32_t inputs) { return (inputs + STEP - 1) / STEP * STEP; }

uint32_t gruard_weight_bytes(uint32_t inputs, uint32_t outputs) {
    const uint32_t rest = outputs % GROUP, rows = outputs - rest;
    if (inputs > WIDEST) return UINT32_MAX; /* the sums of packed rows could leave 32 bits */
    return padded_inputs(inputs) * (rows + (rest == 0 ? 0 : rest <= REST ? REST : GROUP));
}

/* t and s of three pairs of rows: x has two inputs a word, `weights` three words for each two. */
__attribute__((naked, noinline)) static void sum_six(const uint32_t *x, const uint32_t *weights,
                                                     int32_t *sums, uint32_t eights) {
    __asm volatile(
        "push {r2, r4-r11, lr}\n"
        "mov r12, r3\n"
        "movs r2, #0\n movs r3, #0\n movs r4, #0\n movs r5, #0\n movs r6, #0\n movs r7, #0\n"
        "1:\n"
        ".rept 2\n"
        "ldmia r0!, {r8, lr}\n"
        "ldmia r1!, {r9, r10, r11}\n"
        "smlad r2, r9, r8, r2\n sxtb16 r9, r9\n smlad r3, r9, r8, r3\n"
        "smlad r4, r10, r8, r4\n sxtb16 r10, r10\n smlad r5, r10, r8, r5\n"
        "smlad r6, r11, r8, r6\n sxtb16 r11, r11\n smlad r7, r11, r8, r7\n"
        "ldmia r1!, {r9, r10, r11}\n"
        "smlad r2, r9, lr, r2\n sxtb16 r9, r9\n smlad r3, r9, lr, r3\n"
        "smlad r4, r10, lr, r4\n sxtb16 r10, r10\n smlad r5, r10, lr, r5\n"
        "smlad r6, r11, lr, r6\n sxtb16 r11, r11\n smlad r7, r11, lr, r7\n"
        ".endr\n"
        "subs r12, r12, #1\n"
        "bne 1b\n"
        "pop {r12}\n"
        "stmia r12, {r2-r7}\n"
        "pop {r4-r11, pc}\n");
}

/* The same of two pairs. */
__attribute__((naked, noinline)) static void sum_four(const uint32_t *x, const uint32_t *weights,
                                                      int32_t *sums, uint32_t eights) {
    __asm volatile(
        "push {r2, r4-r10, lr}\n"
        "mov r12, r3\n"
        "movs r2, #0\n movs r3, #0\n movs r4, #0\n movs r5, #0\n"
        "1:\n"
        ".rept 2\n"
        "ldmia r0!, {r6, r7}\n"
        "ldmia r1!, {r8, r9, r10, lr}\n"
        "smlad r2, r8, r6, r2\n sxtb16 r8, r8\n smlad r3, r8, r6, r3\n"
        "smlad r4, r9, r6, r4\n sxtb16 r9, r9\n smlad r5, r9, r6, r5\n"
        "smlad r2, r10, r7, r2\n sxtb16 r10, r10\n smlad r3, r10, r7, r3\n"
        "smlad r4, lr, r7, r4\n sxtb16 lr, lr\n smlad r5, lr, r7, r5\n"
        ".endr\n"
        "subs r12, r12, #1\n"
        "bne 1b\n"
        "pop {r12}\n"
        "stmia r12, {r2-r5}\n"
        "pop {r4-r10, pc}\n");
}

/* Codes as pairs of 16-bit lanes. */
static void widen(const int8_t *input, uint32_t inputs, uint32_t *x) {
    uint32_t i = 0;
    for (; i + 4 <= inputs; i += 4) {
        uint32_t four;
        __builtin_memcpy(&four, input + i, 4);
        const uint32_t even = (uint32_t)__sxtb16(four), odd = (uint32_t)__sxtb16(__ror(four, 8));
        *x++ = (even & 0xFFFFu) | (odd << 16);
        *x++ = (even >> 16) | (odd & 0xFFFF0000u);
    }
    if (i < inputs) {
        int16_t rest[4] = {0};
        for (uint32_t k = 0; i < inputs; i++) rest[k++] = input[i];
        __builtin_memcpy(x, rest, 8);
        x += 2;
        i += 4 - inputs % 4;
    }
    for (i = (inputs + 3) / 4 * 4; i < padded_inputs(inputs); i += 2) *x++ = 0;
}

/* (doubled * multiplier / 2^32), rounded: gruard_high of half of it. */
static inline int32_t high_of_double(int32_t doubled, int32_t multiplier) {
    int32_t high;
    __asm("smmulr %0, %1, %2" : "=r"(high) : "r"(doubled), "r"(multiplier));
    return high;
}

static inline int8_t saturated(int32_t value) { return (int8_t)__ssat(value, 8); }

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    uint32_t x[WIDEST / 2];
    const uint32_t eights = padded_inputs(o->inputs) / STEP;
    const uint32_t *packed = (const uint32_t *)(const void *)weights;
    const int32_t multiplier = o->multiplier, right = -o->shift, lowest = o->lowest;
    const int plain = right > 0 && right <= SAFE_SHIFT;
    /* The half that rounds and the zero point, before the shift. */
    const int32_t more = plain ? (int32_t)((1u << (right - 1)) + ((uint32_t)o->out_zero << right))
                               : 0;
    widen(input, o->inputs, x);
    for (uint32_t row = 0; row < o->count;) {
        int32_t sums[GROUP];
        const uint32_t left = o->count - row, rows = left > REST ? GROUP : REST;
        if (rows == GROUP) sum_six(x, packed, sums, eights);
        else sum_four(x, packed, sums, eights);
        packed += rows * eights * (STEP / 4);
        for (uint32_t k = 0; k < rows && row < o->count; k++, row++) {
            /* An even row's sum still has the odd one's in it. */
            const int32_t sum = gruard_plus(k % 2 ? sums[k] : (sums[k] - sums[k + 1]) >> 8,
                                            bias[row]);
            int32_t code;
#ifndef GRUARD_TFLM
            if (plain) code = (high_of_double((int32_t)((uint32_t)sum << 1), multiplier) + more) >> right;
            else
#endif
                code = gruard_plus(gruard_scale_product(sum, multiplier, o->shift), o->out_zero);
            code = code < lowest ? lowest : code;
            output[row] = saturated(code);
        }
    }
}

/* An addend of ADD, scaled. exact: it is the one with the larger scale, whose factor is 1/2. */
static inline int32_t addend(int32_t code, int32_t base, int32_t multiplier, int32_t right,
                             int exact) {
    if (exact) return base + code * (1 << 19);
    const int32_t high = high_of_double(base + code * (1 << 21), multiplier);
    return right ? (high + (high >> 31) + (1 << (right - 1))) >> right : high;
}

static inline __attribute__((always_inline)) void add_all(const gruard_operator *o, int8_t *arena,
                                                          int32_t sign, int left_exact,
                                                          int right_exact) {
    const int8_t *left = arena + o->left, *right = arena + o->right;
    int8_t *out = arena + o->out, *const end = out + o->count;
    const int32_t left_base = -o->left_zero * (1 << (left_exact ? 19 : 21));
    const int32_t right_base = -o->right_zero * (1 << (right_exact ? 19 : 21));
    const int32_t left_factor = o->left_multiplier, right_factor = o->right_multiplier;
    const int32_t left_shift = -o->left_shift, right_shift = -o->right_shift;
    const int32_t factor = o->multiplier, shift = -o->shift;
    const int32_t more = (int32_t)((1u << (shift - 1)) + ((uint32_t)o->out_zero << shift));
    while (out < end) {
        const int32_t a = addend(*left++, left_base, left_factor, left_shift, left_exact);
        const int32_t b = addend(*right++, right_base, right_factor, right_shift, right_exact);
        const int32_t high = high_of_double((a + sign * b) * 2, factor);
        *out++ = saturated((high + (high >> 31) + more) >> shift);
    }
}

static int is_half(int32_t multiplier, int32_t shift) {
    return multiplier == 1 << 30 && shift == 0;
}

void gruard_add(const gruard_operator *o, int8_t *arena, int32_t sign) {
    if (o->shift >= 0 || -o->shift > SAFE_SHIFT) { /* not what a converter makes */
        for (uint32_t i = 0; i < o->count; i++)
            arena[o->out + i] = gruard_narrow(
                gruard_add_codes(arena[o->left + i], arena[o->right + i], sign, o), -128);
    } else if (is_half(o->left_multiplier, o->left_shift)) {
        add_all(o, arena, sign, 1, 0);
    } else if (is_half(o->right_multiplier, o->right_shift)) {
        add_all(o, arena, sign, 0, 1);
    } else {
        add_all(o, arena, sign, 0, 0);
    }
}

void gruard_multiply(const gruard_operator *o, int8_t *arena) {
    const int8_t *left = arena + o->left, *right = arena + o->right;
    int8_t *out = arena + o->out, *const end = out + o->count;
    const int32_t left_base = -2 * o->left_zero, right_zero = o->right_zero;
    const int32_t factor = o->multiplier, shift = -o->shift;
    if (shift <= 0 || shift > SAFE_SHIFT) {
        while (out < end) *out++ = gruard_narrow(gruard_multiply_codes(*left++, *right++, o), -128);
        return;
    }
    const int32_t more = (int32_t)((1u << (shift - 1)) + ((uint32_t)o->out_zero << shift));
    while (out < end) {
        const int32_t doubled = (left_base + *left++ * 2) * (*right++ - right_zero);
        const int32_t high = high_of_double(doubled, factor);
        *out++ = saturated((high + (high >> 31) + more) >> shift);
    }
}
