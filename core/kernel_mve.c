/* The arithmetic on a Cortex-M55, whose vectors (MVE) have 16 lanes of 8 bits or 4 of 32.
 *
 * Weights lie in groups of four rows: their biases, then for each 16 inputs 16 bytes of each row.
 * The loops are predicated at their tail, so nothing beyond a row is read or written. See
 * edge_runtime.native.layout.
 */
#if defined(__OPTIMIZE_SIZE__) && !defined(__clang__)
#pragma GCC optimize("O2") /* most of a step's time is spent here, and little of the size */
#endif
#include <string.h>

#include "fixed.h"
#include "parts.h"

enum { ROWS = 4, LANES = 16 };

const uint32_t gruard_layout = GRUARD_QUADS;

uint32_t gruard_weight_bytes(const gruard_operator *o) {
    if (!gruard_is_plain(o->shift) || o->constant % 4) return UINT32_MAX;
    const uint32_t bytes = (o->inputs + LANES - 1) / LANES * LANES + 4; /* of a row */
    return (o->count + ROWS - 1) / ROWS * ROWS * bytes;
}

uint32_t gruard_biases(uint32_t outputs) {
    (void)outputs;
    return 0; /* they lie with the weights */
}

/* What the function below reads, by its place. */
typedef struct {
    const int8_t *x;
    uint32_t inputs;
    int32_t multiplier, more;
    int8_t *out;
    int32_t shift;
    uint32_t groups;
} product;
/* From codes to codes; returns the end of the weights. */
const int8_t *gruard_four_rows(const int8_t *weights, const product *p);

#define BEGIN(name)                                                                   \
    ".syntax unified\n.section .text." name ", \"ax\"\n.align 2\n.global " name "\n" \
    ".thumb\n.thumb_func\n.type " name ", %function\n" name ":\n"
/* The low byte of each lane of q0 becomes its saturated code. */
#define NARROW "vqmovnb.s32 q0, q0\nvqmovnb.s16 q0, q0\n"
/* Sixteen weights of each row with the inputs in x. */
#define ROW(sum, w, x) "vldrb.u8 " w ", [r0], #16\nvmlava.s8 " sum ", " x ", " w "\n"
#define FOUR_ROWS(x)                                                                  \
    ROW("r4", "q0", x) ROW("r6", "q1", x) ROW("r8", "q0", x) ROW("r10", "q1", x)
/* From the four sums to codes, with the multiplier in q2. */
#define CODES                                                                         \
    "stmia sp, {r4, r6, r8, r10}\nvldrw.u32 q0, [sp]\n"                                \
    "vqrdmlash.s32 q0, q2, r5\nvshl.s32 q0, r9\n" NARROW                               \
    "vstrb.32 q0, [r7], #4\n"
__asm(BEGIN("gruard_four_rows")
      "push {r4-r11, lr}\n"
      "sub sp, sp, #16\n"
      "ldm r1, {r1, r2, r3, r5, r7, r9, r11}\n"
      "vdup.32 q2, r3\n"
      "cmp r2, #16\n"
      "bls .Lfew\n"
      "1:\n"
      "ldmia r0!, {r4, r6, r8, r10}\n"
      "mov r12, r1\n"
      "dlstp.8 lr, r2\n"
      "2:\n"
      "vldrb.u8 q3, [r12], #16\n" FOUR_ROWS("q3")
      "letp lr, 2b\n" CODES
      "subs r11, r11, #1\n"
      "bne 1b\n"
      "b .Lall\n"
      ".Lfew:\n" /* so few inputs stay in a vector, zeros beyond them */
      "vctp.8 r2\nvpst\nvldrbt.u8 q3, [r1]\n"
      "dls lr, r11\n"
      "3:\n"
      "ldmia r0!, {r4, r6, r8, r10}\n"
      FOUR_ROWS("q3") CODES
      "le lr, 3b\n"
      ".Lall:\n"
      "add sp, sp, #16\n"
      "pop {r4-r11, pc}\n");

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    int8_t codes[ROWS];
    const uint32_t rest = o->count % ROWS, rows = o->count - rest;
    product p = {input, o->inputs, o->multiplier, gruard_before_shift(o), output, o->shift,
                 rows / ROWS};
    (void)bias;
    if (rows) weights = gruard_four_rows(weights, &p);
    if (rest) {
        p.out = codes, p.groups = 1;
        gruard_four_rows(weights, &p);
        for (uint32_t i = 0; i < rest; i++) output[rows + i] = codes[i];
    }
    const int8_t lowest = (int8_t)o->lowest;
    for (uint32_t i = 0; lowest > -128 && i < o->count; i++)
        if (output[i] < lowest) output[i] = lowest;
}

/* ADD and SUB without a linear form, which are rare. */
void gruard_add(const gruard_operator *o, int8_t *arena, int32_t sign) {
    gruard_add_exactly(o, arena, sign);
}

/* Sums in their linear form. factors: of left and right, and the constant less what the two shifts,
 * which round, add. */
void gruard_linear_row(const int8_t *left, const int8_t *right, int8_t *out,
                       const int32_t *factors, uint32_t count);

__asm(BEGIN("gruard_linear_row")
      "push {r4, r5, r6, lr}\n"
      "ldr r4, [sp, #16]\n"
      "ldm r3, {r3, r5, r6}\n"
      "vdup.32 q2, r3\n"
      "dlstp.32 lr, r4\n"
      "1:\n"
      "vldrb.s32 q0, [r0], #4\nvldrb.s32 q1, [r1], #4\n"
      "vmlas.s32 q0, q2, r6\nvmla.s32 q0, q1, r5\n"
      "vqrshrnb.s32 q0, q0, #14\nvqrshrnb.s16 q0, q0, #7\n"
      "vstrb.32 q0, [r2], #4\n"
      "letp lr, 1b\n"
      "pop {r4, r5, r6, pc}\n");

void gruard_linear(const gruard_operator *o, int8_t *arena, const int8_t *table) {
    const int32_t constant = o->multiplier - (1 << 13) - (1 << 20);
    const int32_t factors[3] = {o->left_multiplier, o->right_multiplier, constant};
    int8_t *const out = arena + o->out;
    gruard_linear_row(arena + o->left, arena + o->right, out, factors, o->count);
    if (table) gruard_look_up(out, out, o->count, table);
}

/* What the loop below reads, by its place. */
typedef struct {
    int32_t left_zero, right_zero, multiplier, more, shift;
} elementwise;
void gruard_multiply_row(const int8_t *left, const int8_t *right, int8_t *out,
                         const elementwise *e, uint32_t count);

__asm(BEGIN("gruard_multiply_row")
      "push {r4-r8, lr}\n"
      "ldr r12, [sp, #24]\n"
      "ldm r3, {r4-r8}\n"
      "vdup.32 q2, r6\n"
      "dlstp.32 lr, r12\n"
      "1:\n"
      "vldrb.s32 q0, [r0], #4\nvldrb.s32 q1, [r1], #4\n"
      "vsub.i32 q0, q0, r4\nvsub.i32 q1, q1, r5\nvmul.i32 q0, q0, q1\n"
      "vshr.s32 q1, q0, #31\n" /* ties away from zero */
      "vqrdmlash.s32 q0, q2, r7\nvadd.i32 q0, q0, q1\n"
      "vshl.s32 q0, r8\n" NARROW
      "vstrb.32 q0, [r2], #4\n"
      "letp lr, 1b\n"
      "pop {r4-r8, pc}\n");

void gruard_multiply(const gruard_operator *o, int8_t *arena) {
    const int8_t *const left = arena + o->left, *const right = arena + o->right;
    int8_t *const out = arena + o->out;
    if (gruard_is_plain(o->shift)) {
        const elementwise e = {o->left_zero, o->right_zero, o->multiplier, gruard_before_shift(o),
                               o->shift};
        gruard_multiply_row(left, right, out, &e, o->count);
        return;
    }
    for (uint32_t i = 0; i < o->count; i++) /* no converter writes that */
        out[i] = gruard_narrow(gruard_multiply_codes(left[i], right[i], o), -128);
}

void gruard_look_up_row(const int8_t *codes, int8_t *out, const int8_t *table, uint32_t count);

__asm(BEGIN("gruard_look_up_row")
      "push {r4, lr}\n"
      "movs r4, #128\n"
      "vdup.8 q2, r4\n"
      "dlstp.8 lr, r3\n"
      "1:\n"
      "vldrb.u8 q0, [r0], #16\n"
      "veor q0, q0, q2\n" /* code + 128 */
      "vldrb.u8 q1, [r2, q0]\n"
      "vstrb.8 q1, [r1], #16\n"
      "letp lr, 1b\n"
      "pop {r4, pc}\n");

void gruard_look_up(const int8_t *codes, int8_t *out, uint32_t count, const int8_t *table) {
    gruard_look_up_row(codes, out, table, count);
}
