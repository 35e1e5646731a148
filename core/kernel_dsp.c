/* The arithmetic on a Cortex-M4, M7 or M33: SMLAD and SMMULR.
 *
 * Two rows of weights share a 16-bit lane, 256 a + b, so that one SMLAD works on two inputs of two
 * rows: t = sum x (256 a + b) and s = sum x b give both sums, a's as (t - s) / 256. Rows go in
 * groups of six, the last of them in a group of four or six; inputs are padded to a multiple of
 * eight. See edge_runtime.native.program.
 */
#if defined(__OPTIMIZE_SIZE__) && !defined(__clang__)
#pragma GCC optimize("O2") /* most of a step's time is spent here, and little of the size */
#endif
#include <arm_acle.h>
#include <string.h>

#include "fixed.h"
#include "parts.h"

enum { GROUP = 6, REST = 4, STEP = 8, WIDEST = 512, SAFE_SHIFT = 22, AT_ONCE = 6 };

const uint32_t gruard_layout = GRUARD_PAIRS;

static uint32_t padded_inputs(uint32_t inputs) { return (inputs + STEP - 1) / STEP * STEP; }

uint32_t gruard_weight_bytes(uint32_t inputs, uint32_t outputs) {
    const uint32_t rest = outputs % GROUP, rows = outputs - rest;
    if (inputs > WIDEST) return UINT32_MAX; /* the sums of packed rows could leave 32 bits */
    return padded_inputs(inputs) * (rows + (rest == 0 ? 0 : rest <= REST ? REST : GROUP));
}

/* Sums of three pairs of rows: x has two inputs a word, `weights` three words for each two. */
void gruard_sum_six(const uint32_t *x, const uint32_t *weights, int32_t *sums, uint32_t eights);
/* The same of two pairs. */
void gruard_sum_four(const uint32_t *x, const uint32_t *weights, int32_t *sums, uint32_t eights);

#define BEGIN(name)                                                                   \
    ".syntax unified\n.section .text." name ", \"ax\"\n.align 2\n.global " name "\n" \
    ".thumb\n.thumb_func\n.type " name ", %function\n" name ":\n"
/* One word of weights with one of inputs: t, then s. */
#define PAIR(t, s, word, x)                                                           \
    "smlad " t ", " word ", " x ", " t "\nsxtb16 " word ", " word "\n"                 \
    "smlad " s ", " word ", " x ", " s "\n"

__asm(BEGIN("gruard_sum_six")
      "push {r2, r4-r11, lr}\n"
      "mov r12, r3\n"
      "movs r2, #0\nmovs r3, #0\nmovs r4, #0\nmovs r5, #0\nmovs r6, #0\nmovs r7, #0\n"
      "1:\n"
      ".rept 2\n"
      "ldmia r0!, {r8, lr}\n"
      "ldmia r1!, {r9, r10, r11}\n"
      PAIR("r2", "r3", "r9", "r8") PAIR("r4", "r5", "r10", "r8") PAIR("r6", "r7", "r11", "r8")
      "ldmia r1!, {r9, r10, r11}\n"
      PAIR("r2", "r3", "r9", "lr") PAIR("r4", "r5", "r10", "lr") PAIR("r6", "r7", "r11", "lr")
      ".endr\n"
      "subs r12, r12, #1\n"
      "bne 1b\n"
      "pop {r12}\n"
      "sub r2, r2, r3\nsub r4, r4, r5\nsub r6, r6, r7\n"
      "asr r2, r2, #8\nasr r4, r4, #8\nasr r6, r6, #8\n"
      "stmia r12, {r2-r7}\n"
      "pop {r4-r11, pc}\n");

__asm(BEGIN("gruard_sum_four")
      "push {r2, r4-r10, lr}\n"
      "mov r12, r3\n"
      "movs r2, #0\nmovs r3, #0\nmovs r4, #0\nmovs r5, #0\n"
      "1:\n"
      ".rept 2\n"
      "ldmia r0!, {r6, r7}\n"
      "ldmia r1!, {r8, r9, r10, lr}\n"
      PAIR("r2", "r3", "r8", "r6") PAIR("r4", "r5", "r9", "r6")
      PAIR("r2", "r3", "r10", "r7") PAIR("r4", "r5", "lr", "r7")
      ".endr\n"
      "subs r12, r12, #1\n"
      "bne 1b\n"
      "pop {r12}\n"
      "sub r2, r2, r3\nsub r4, r4, r5\nasr r2, r2, #8\nasr r4, r4, #8\n"
      "stmia r12, {r2-r5}\n"
      "pop {r4-r10, pc}\n");

/* Codes as pairs of 16-bit lanes. */
static void widen(const int8_t *input, uint32_t inputs, uint32_t *x) {
    uint32_t i = 0;
    for (; i + 4 <= inputs; i += 4) {
        uint32_t four;
        __builtin_memcpy(&four, input + i, 4);
        const uint32_t even = (uint32_t)__sxtb16(four);
        const uint32_t odd = (uint32_t)__sxtb16(four >> 8 | four << 24);
        __asm("pkhbt %0, %1, %2, lsl #16" : "=r"(x[0]) : "r"(even), "r"(odd));
        __asm("pkhtb %0, %1, %2, asr #16" : "=r"(x[1]) : "r"(odd), "r"(even));
        x += 2;
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

/* From the sums of `count` rows to their codes. */
static void finish(const int32_t *sums, const gruard_integer *bias, int8_t *output, uint32_t count,
                   const gruard_operator *o) {
    const int32_t multiplier = o->multiplier, right = -o->shift, lowest = o->lowest;
    int8_t *const end = output + count;
    const int plain = right > 0 && right <= SAFE_SHIFT;
    if (!plain) { /* rare: a result that is finer than the sum */
        while (output < end) {
            const int32_t sum = gruard_plus(*sums++, *bias++);
            const int32_t scaled = gruard_scale_product(sum, multiplier, o->shift);
            *output++ = gruard_narrow(gruard_plus(scaled, o->out_zero), lowest);
        }
        return;
    }
    /* The half that rounds and the zero point, before the shift. */
    const int32_t more = (int32_t)((1u << (right - 1)) + ((uint32_t)o->out_zero << right));
    for (int8_t *out = output; out < end; out++) {
        const uint32_t sum = (uint32_t)*sums++ + (uint32_t)*bias++;
        *out = saturated((high_of_double((int32_t)(sum << 1), multiplier) + more) >> right);
    }
    for (; lowest > -128 && output < end; output++)
        if (*output < lowest) *output = (int8_t)lowest;
}

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    uint32_t x[WIDEST / 2];
    int32_t sums[AT_ONCE * GROUP];
    const uint32_t eights = padded_inputs(o->inputs) / STEP;
    const uint32_t *packed = (const uint32_t *)(const void *)weights;
    widen(input, o->inputs, x);
    for (uint32_t row = 0; row < o->count; row += AT_ONCE * GROUP) {
        const uint32_t left = o->count - row;
        const uint32_t rows = left < AT_ONCE * GROUP ? left : AT_ONCE * GROUP;
        for (uint32_t done = 0; done < rows; done += GROUP) {
            const int six = rows - done > REST;
            if (six) gruard_sum_six(x, packed, sums + done, eights);
            else gruard_sum_four(x, packed, sums + done, eights);
            packed += (six ? GROUP : REST) * eights * (STEP / 4);
        }
        finish(sums, bias + row, output + row, rows, o);
    }
}

/* The addends of ADD. The one with the larger scale has the factor 1/2, which needs no product, so
 * there are `exact` and `other`. */
typedef struct {
    const int8_t *exact, *other;
    int32_t exact_zero, other_zero, other_factor, other_shift;
} addends;

/* What is added, and how often the other addend is rounded. */
enum { BOTH_ONCE, BOTH, LESS_OTHER, LESS_EXACT };

/* All sums are twice what TFLite's are, so that SMMULR rounds as its multiplication does. */
static inline __attribute__((always_inline)) void add_all(addends a, const gruard_operator *o,
                                                          int8_t *out, int8_t *end, int how) {
    const int32_t exact_base = a.exact_zero * (how == LESS_EXACT ? 1 << 20 : -(1 << 20));
    const int32_t up = GRUARD_ADD_SHIFT + 1 + (how == BOTH_ONCE ? a.other_shift : 0);
    const int32_t down = how == BOTH_ONCE ? 0 : -a.other_shift, half = down ? 1 << (down - 1) : 0;
    const int32_t other_base = -a.other_zero * (1 << up);
    const int32_t factor = o->multiplier, right = -o->shift;
    const int32_t more = (int32_t)((1u << (right - 1)) + ((uint32_t)o->out_zero << right));
    while (out < end) {
        int32_t high = high_of_double(other_base + *a.other++ * (1 << up), a.other_factor);
        if (down) high = (high + (high >> 31) + half) >> down;
        const int32_t code = *a.exact++ * (1 << 20);
        const int32_t base = how == LESS_EXACT ? exact_base - code : exact_base + code;
        const int32_t sum = how == LESS_OTHER ? base - high * 2 : base + high * 2;
        high = high_of_double(sum, factor);
        *out++ = saturated((high + (high >> 31) + more) >> right);
    }
}

static int is_half(int32_t multiplier, int32_t shift) {
    return multiplier == 1 << 30 && shift == 0;
}

/* The cases that no converter writes. */
static void add_rare(const gruard_operator *o, int8_t *arena, int32_t sign, uint32_t once) {
    const int8_t *left = arena + o->left, *right = arena + o->right;
    int8_t *out = arena + o->out;
    for (uint32_t i = 0; i < o->count; i++)
        out[i] = gruard_narrow(i < once ? gruard_add_once(left[i], right[i], o)
                                        : gruard_add_twice(left[i], right[i], sign, o), -128);
}

void gruard_add(const gruard_operator *o, int8_t *arena, int32_t sign) {
    const uint32_t once = gruard_rounded_once(o->count, sign);
    const int left = is_half(o->left_multiplier, o->left_shift);
    const int right = is_half(o->right_multiplier, o->right_shift);
    if ((!left && !right) || o->shift >= 0 || -o->shift > SAFE_SHIFT) {
        add_rare(o, arena, sign, once);
        return;
    }
    addends a = {arena + o->left, arena + o->right, o->left_zero, o->right_zero,
                 o->right_multiplier, o->right_shift};
    if (!left)
        a = (addends){arena + o->right, arena + o->left, o->right_zero, o->left_zero,
                      o->left_multiplier, o->left_shift};
    int8_t *const out = arena + o->out, *const end = out + o->count;
    if (sign < 0) {
        if (left) add_all(a, o, out, end, LESS_OTHER);
        else add_all(a, o, out, end, LESS_EXACT);
        return;
    }
    add_all(a, o, out, out + once, BOTH_ONCE);
    a.exact += once, a.other += once;
    add_all(a, o, out + once, end, BOTH);
}

void gruard_linear(const gruard_operator *o, int8_t *arena, const int8_t *table) {
    const int8_t *left = arena + o->left, *right = arena + o->right;
    const int8_t *const middle = table ? table + 128 : NULL;
    const int32_t a = o->left_multiplier, b = o->right_multiplier, c = o->multiplier;
    int8_t *out = arena + o->out, *const end = out + o->count;
    while (out < end) {
        const int32_t sum = c + *left++ * a + *right++ * b;
        const int32_t code = __ssat(sum >> GRUARD_LINEAR_SHIFT, 8);
        *out++ = middle ? middle[code] : (int8_t)code;
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

void gruard_look_up(const int8_t *codes, int8_t *out, uint32_t count, const int8_t *table) {
    const int8_t *const middle = table + 128;
    for (int8_t *const end = out + count; out < end;) *out++ = middle[*codes++];
}
