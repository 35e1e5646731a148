/* The arithmetic on 64-bit Arm with NEON, sixteen outputs at a time.
 *
 * Weights lie in blocks of 16 outputs: for each 4 inputs 64 bytes, 4 for each output; widths are
 * padded with zeros. With dot products (ARMv8.2) one instruction adds 16 products. Without them two
 * products are added in 16 bits first, so the packer refuses weights of -128.
 */
#include <arm_neon.h>
#include <string.h>
#include <sys/auxv.h>

#include "fixed.h"
#include "parts.h"

enum { LANES = GRUARD_LANE_OUTPUTS, GROUP = GRUARD_LANE_INPUTS, BLOCK = LANES * GROUP };
enum { CODES = 16, HALF = 8 }; /* int8 values of a register, and of half of one */

#define ALWAYS __attribute__((always_inline)) /* so that sums stay in registers */

const uint32_t gruard_layout = GRUARD_SIGNED_LANES;

static inline uint32_t block_bytes(uint32_t inputs) {
    return (inputs + GROUP - 1) / GROUP * BLOCK;
}

uint32_t gruard_weight_bytes(const gruard_operator *o) {
    return block_bytes(o->inputs) * ((o->count + LANES - 1) / LANES);
}

uint32_t gruard_biases(uint32_t outputs) { return outputs; }

/* Sixteen values of 32 bits, and eight. */
typedef struct { int32x4_t part[4]; } sixteen;
typedef struct { int32x4_t low, high; } eight;

/* The factor of an operator: a shift to the left, a product, a shift to the right. */
typedef struct {
    int32x4_t left, right;
    int32_t multiplier, shift;
} factor;

static inline factor factor_of(int32_t multiplier, int32_t shift) {
    const factor f = {vdupq_n_s32(shift > 0 ? shift : 0), vdupq_n_s32(shift < 0 ? shift : 0),
                      multiplier, shift};
    return f;
}

/* gruard_high of the shifted values. */
static inline int32x4_t high4(int32x4_t values, factor f) {
    if (f.shift > 0) values = vshlq_s32(values, f.left);
    return vqrdmulhq_n_s32(values, f.multiplier);
}

/* gruard_scale_product: ties upward. */
static inline int32x4_t product4(int32x4_t values, factor f) {
    return vrshlq_s32(high4(values, f), f.right);
}

/* gruard_scale: ties away from zero, for which one is taken from negative values. */
static inline int32x4_t scale4(int32x4_t values, factor f) {
    int32x4_t high = high4(values, f);
    if (f.shift < 0) high = vsraq_n_s32(high, high, 31);
    return vrshlq_s32(high, f.right);
}

/* gruard_narrow of eight values plus the zero point; it saturates on the way. */
static inline int8x8_t narrow8(int32x4_t low, int32x4_t high, int32_t zero) {
    const int16x8_t values = vqmovn_high_s32(vqmovn_s32(low), high);
    return vqmovn_s16(vqaddq_s16(values, vdupq_n_s16((int16_t)zero)));
}

static inline void store_block(int8_t *output, sixteen sums, factor f, const gruard_operator *o) {
    for (int q = 0; q < 4; q++) sums.part[q] = product4(sums.part[q], f);
    const int8x8_t low = narrow8(sums.part[0], sums.part[1], o->out_zero);
    const int8x8_t high = narrow8(sums.part[2], sums.part[3], o->out_zero);
    vst1q_s8(output, vmaxq_s8(vcombine_s8(low, high), vdupq_n_s8((int8_t)o->lowest)));
}

static inline sixteen load16(const int32_t *values) {
    const sixteen s = {{vld1q_s32(values), vld1q_s32(values + 4), vld1q_s32(values + 8),
                        vld1q_s32(values + 12)}};
    return s;
}

/* The inputs of a group, four times; zeros stand for those beyond the row. */
static inline int8x16_t group_at(const int8_t *input, uint32_t left) {
    int8_t some[GROUP] = {0};
    int32_t group;
    if (left >= GROUP) memcpy(&group, input, GROUP);
    else {
        for (uint32_t i = 0; i < left; i++) some[i] = input[i];
        memcpy(&group, some, GROUP);
    }
    return vreinterpretq_s8_s32(vdupq_n_s32(group));
}

#define DOT __attribute__((target("arch=armv8.2-a+dotprod"))) static inline

/* Add the products of one block of weights with the group in a lane of `codes`. */
#define ADD_DOT(sums, weights, codes, lane)                                                 \
    do {                                                                                    \
        const int8x16x4_t block = vld1q_s8_x4(weights);                                     \
        for (int q = 0; q < 4; q++)                                                         \
            (sums).part[q] = vdotq_laneq_s32((sums).part[q], block.val[q], codes, lane);    \
    } while (0)

DOT ALWAYS sixteen sum_dot(const int8_t *input, uint32_t inputs, const int8_t *weights, sixteen sums) {
    for (; inputs >= CODES; inputs -= CODES, input += CODES, weights += 4 * BLOCK) {
        const int8x16_t codes = vld1q_s8(input);
        ADD_DOT(sums, weights, codes, 0);
        ADD_DOT(sums, weights + BLOCK, codes, 1);
        ADD_DOT(sums, weights + 2 * BLOCK, codes, 2);
        ADD_DOT(sums, weights + 3 * BLOCK, codes, 3);
    }
    for (uint32_t at = 0; at < inputs; at += GROUP, weights += BLOCK) {
        const int8x16_t codes = group_at(input + at, inputs - at);
        ADD_DOT(sums, weights, codes, 0);
    }
    return sums;
}

/* Two sums for each of 16 outputs. */
typedef struct { int32x4_t part[8]; } halves;

/* Add the products of two blocks of weights, each with its group of inputs. */
static inline ALWAYS halves add_pairs(halves sums, int8x16_t first, const int8_t *one, int8x16_t second,
                               const int8_t *other) {
    const int8x16x4_t a = vld1q_s8_x4(one), b = vld1q_s8_x4(other);
    for (int q = 0; q < 4; q++) {
        int16x8_t low = vmull_s8(vget_low_s8(first), vget_low_s8(a.val[q]));
        int16x8_t high = vmull_high_s8(first, a.val[q]);
        low = vmlal_s8(low, vget_low_s8(second), vget_low_s8(b.val[q]));
        high = vmlal_high_s8(high, second, b.val[q]);
        sums.part[2 * q] = vpadalq_s16(sums.part[2 * q], low);
        sums.part[2 * q + 1] = vpadalq_s16(sums.part[2 * q + 1], high);
    }
    return sums;
}

static inline ALWAYS sixteen sum_pairs(const int8_t *input, uint32_t inputs, const int8_t *weights,
                                sixteen sums) {
    const int32x4_t zero = vdupq_n_s32(0);
    halves s;
    for (int q = 0; q < 4; q++) {
        s.part[2 * q] = vzip1q_s32(sums.part[q], zero);
        s.part[2 * q + 1] = vzip2q_s32(sums.part[q], zero);
    }
    for (; inputs >= 2 * GROUP; inputs -= 2 * GROUP, input += 2 * GROUP, weights += 2 * BLOCK)
        s = add_pairs(s, group_at(input, GROUP), weights, group_at(input + GROUP, GROUP),
                      weights + BLOCK);
    if (inputs > GROUP)
        s = add_pairs(s, group_at(input, GROUP), weights,
                      group_at(input + GROUP, inputs - GROUP), weights + BLOCK);
    else if (inputs)
        s = add_pairs(s, group_at(input, inputs), weights, vdupq_n_s8(0), weights);
    for (int q = 0; q < 4; q++) sums.part[q] = vpaddq_s32(s.part[2 * q], s.part[2 * q + 1]);
    return sums;
}

typedef sixteen (*summing)(const int8_t *input, uint32_t inputs, const int8_t *weights,
                           sixteen sums);

static inline ALWAYS void every_block(
    const int8_t *input, const int8_t *weights, const gruard_integer *biases, int8_t *output,
    const gruard_operator *o, summing sum) {
    const int32_t *bias = (const int32_t *)biases;
    const factor f = factor_of(o->multiplier, o->shift);
    const uint32_t block = block_bytes(o->inputs);
    uint32_t left = o->count;
    for (; left >= LANES; left -= LANES, bias += LANES, output += LANES, weights += block)
        store_block(output, sum(input, o->inputs, weights, load16(bias)), f, o);
    if (!left) return;
    int32_t some[LANES] = {0};
    int8_t codes[LANES];
    for (uint32_t i = 0; i < left; i++) some[i] = bias[i];
    store_block(codes, sum(input, o->inputs, weights, load16(some)), f, o);
    for (uint32_t i = 0; i < left; i++) output[i] = codes[i];
}

DOT void with_dot(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                  int8_t *output, const gruard_operator *o) {
    every_block(input, weights, bias, output, o, sum_dot);
}

static void without_dot(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                        int8_t *output, const gruard_operator *o) {
    every_block(input, weights, bias, output, o, sum_pairs);
}

/* Which of the two; every thread that finds it unset chooses the same. */
static enum { UNSET, PLAIN, DOT_PRODUCT } level;

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    if (!level) level = getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? DOT_PRODUCT : PLAIN;
    if (level == DOT_PRODUCT) with_dot(input, weights, bias, output, o);
    else without_dot(input, weights, bias, output, o);
}

/* Eight results of an operator on two rows. */
typedef int8x8_t (*pairwise)(int8x8_t left, int8x8_t right, const gruard_operator *o);

/* The results [from, to); what is no whole group of eight is computed in a copy. */
static inline ALWAYS void every_pair(
    const gruard_operator *o, int8_t *arena, uint32_t from, uint32_t to, pairwise compute) {
    const int8_t *left = arena + o->left + from, *right = arena + o->right + from;
    int8_t *output = arena + o->out + from;
    uint32_t count = to - from;
#pragma GCC unroll 2
    for (; count >= HALF; count -= HALF, left += HALF, right += HALF, output += HALF)
        vst1_s8(output, compute(vld1_s8(left), vld1_s8(right), o));
    if (!count) return;
    int8_t some[2][HALF] = {{0}, {0}}, codes[HALF];
    for (uint32_t i = 0; i < count; i++) some[0][i] = left[i], some[1][i] = right[i];
    vst1_s8(codes, compute(vld1_s8(some[0]), vld1_s8(some[1]), o));
    for (uint32_t i = 0; i < count; i++) output[i] = codes[i];
}

static inline eight wide8(int8x8_t codes, int32_t zero) {
    const int16x8_t values = vsubl_s8(codes, vdup_n_s8((int8_t)zero));
    const eight e = {vmovl_s16(vget_low_s16(values)), vmovl_high_s16(values)};
    return e;
}

/* gruard_addend_once, or gruard_addend_twice. */
static inline eight addend8(int8x8_t codes, int32_t zero, int32_t multiplier, int32_t shift,
                            int once) {
    const int32x4_t up = vdupq_n_s32(GRUARD_ADD_SHIFT + (once ? shift : 0));
    const factor f = factor_of(multiplier, once ? 0 : shift);
    eight e = wide8(codes, zero);
    e.low = scale4(vshlq_s32(e.low, up), f);
    e.high = scale4(vshlq_s32(e.high, up), f);
    return e;
}

static inline int8x8_t sum8(int8x8_t left, int8x8_t right, const gruard_operator *o, int32_t sign,
                            int once) {
    const factor f = factor_of(o->multiplier, o->shift);
    const eight a = addend8(left, o->left_zero, o->left_multiplier, o->left_shift, once);
    const eight b = addend8(right, o->right_zero, o->right_multiplier, o->right_shift, once);
    return narrow8(scale4(vmlaq_n_s32(a.low, b.low, sign), f),
                   scale4(vmlaq_n_s32(a.high, b.high, sign), f), o->out_zero);
}

static int8x8_t add_once(int8x8_t left, int8x8_t right, const gruard_operator *o) {
    return sum8(left, right, o, 1, 1);
}

static int8x8_t add_twice(int8x8_t left, int8x8_t right, const gruard_operator *o) {
    return sum8(left, right, o, 1, 0);
}

static int8x8_t subtract(int8x8_t left, int8x8_t right, const gruard_operator *o) {
    return sum8(left, right, o, -1, 0);
}

void gruard_add(const gruard_operator *operator, int8_t *arena, int32_t sign) {
    const gruard_operator o = *operator; /* no store to the arena can change it */
    const uint32_t once = gruard_rounded_once(o.count, sign);
    every_pair(&o, arena, 0, once, add_once);
    every_pair(&o, arena, once, o.count, sign > 0 ? add_twice : subtract);
}

static inline int8x8_t multiply8(int8x8_t left, int8x8_t right, const gruard_operator *o) {
    const factor f = factor_of(o->multiplier, o->shift);
    const int16x8_t a = vsubl_s8(left, vdup_n_s8((int8_t)o->left_zero));
    const int16x8_t b = vsubl_s8(right, vdup_n_s8((int8_t)o->right_zero));
    return narrow8(scale4(vmull_s16(vget_low_s16(a), vget_low_s16(b)), f),
                   scale4(vmull_high_s16(a, b), f), o->out_zero);
}

void gruard_multiply(const gruard_operator *operator, int8_t *arena) {
    const gruard_operator o = *operator;
    every_pair(&o, arena, 0, o.count, multiply8);
}

static inline int32x4_t linear4(int16x4_t left, int16x4_t right, const gruard_operator *o) {
    const int32x4_t constant = vdupq_n_s32(o->multiplier);
    const int32x4_t sum = vmlaq_n_s32(constant, vmovl_s16(left), o->left_multiplier);
    return vmlaq_n_s32(sum, vmovl_s16(right), o->right_multiplier);
}

static inline int8x8_t linear8(int8x8_t left, int8x8_t right, const gruard_operator *o) {
    const int16x8_t a = vmovl_s8(left), b = vmovl_s8(right);
    const int32x4_t low = linear4(vget_low_s16(a), vget_low_s16(b), o);
    const int32x4_t high = linear4(vget_high_s16(a), vget_high_s16(b), o);
    /* the upper half of 32 bits, then the rest of the shift */
    const int16x8_t upper = vshrn_high_n_s32(vshrn_n_s32(low, 16), high, 16);
    return vqshrn_n_s16(upper, GRUARD_LINEAR_SHIFT - 16);
}

void gruard_linear(const gruard_operator *operator, int8_t *arena, const int8_t *table) {
    const gruard_operator o = *operator;
    every_pair(&o, arena, 0, o.count, linear8);
    if (table) gruard_look_up(arena + o.out, arena + o.out, o.count, table);
}

void gruard_look_up(const int8_t *codes, int8_t *out, uint32_t count, const int8_t *table) {
    const uint8_t *const entries = (const uint8_t *)table;
    uint8x16x4_t quarter[4];
    if (count >= CODES)
        for (int q = 0; q < 4; q++) quarter[q] = vld1q_u8_x4(entries + 64 * q);
    for (; count >= CODES; count -= CODES, codes += CODES, out += CODES) {
        uint8x16_t at = veorq_u8(vreinterpretq_u8_s8(vld1q_s8(codes)), vdupq_n_u8(128));
        uint8x16_t found = vqtbl4q_u8(quarter[0], at); /* 0 beyond its quarter */
        for (int q = 1; q < 4; q++) {
            at = vsubq_u8(at, vdupq_n_u8(64));
            found = vqtbx4q_u8(found, quarter[q], at);
        }
        vst1q_s8(out, vreinterpretq_s8_u8(found));
    }
    for (uint32_t i = 0; i < count; i++) out[i] = table[128 + codes[i]];
}
