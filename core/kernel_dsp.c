/* The arithmetic on a Cortex-M4, M7 or M33: SMLAD and SMMLAR.
 *
 * Two rows of weights share a 16-bit lane, 256 a + b, so that one SMLAD works on two inputs of two
 * rows: t = sum x (256 a + b) and s = sum x b give both sums, a's as (t - s) / 256. Rows go in
 * groups of six, the last of them in a group of four or six, each after its biases, with which t
 * and s begin; inputs are padded to a multiple of eight. Inputs and biases are doubled, so that
 * SMMLAR rounds as TFLite's multiplication does. See edge_runtime.native.layout.
 */
#if defined(__OPTIMIZE_SIZE__) && !defined(__clang__)
#pragma GCC optimize("O2") /* most of a step's time is spent here, and little of the size */
#endif
#include <arm_acle.h>
#include <string.h>

#include "fixed.h"
#include "parts.h"

enum { GROUP = 6, REST = 4, STEP = 8, WIDEST = 512 };

const uint32_t gruard_layout = GRUARD_PAIRS;

static uint32_t padded_inputs(uint32_t inputs) { return (inputs + STEP - 1) / STEP * STEP; }

/* Bytes of `rows` rows of whole groups. */
static uint32_t group_bytes(uint32_t inputs, uint32_t rows) {
    return (padded_inputs(inputs) + 4) * rows;
}

uint32_t gruard_weight_bytes(const gruard_operator *o) {
    const uint32_t rest = o->count % GROUP, rows = o->count - rest;
    if (o->inputs > WIDEST || !gruard_is_plain(o->shift) || o->constant % 4) return UINT32_MAX;
    return group_bytes(o->inputs, rows + (rest == 0 ? 0 : rest <= REST ? REST : GROUP));
}

uint32_t gruard_biases(uint32_t outputs) {
    (void)outputs;
    return 0; /* they lie with the weights */
}

/* What the two functions below read, by its place. */
typedef struct {
    const uint32_t *x;              /* doubled codes, two a word, as `widen` has them */
    int32_t multiplier, more, right; /* of the sums; more: the half that rounds and the zero */
    int8_t *out;                    /* moves on */
    uint32_t eights;                /* inputs of a row */
    const uint32_t *end;            /* of the weights */
} product;

/* From codes to codes: groups of six rows, up to the end of the weights. */
void gruard_six_rows(const uint32_t *weights, product *p);
/* The same for a multiple of sixteen inputs; `eights` has half of theirs. */
void gruard_six_rows_by_sixteen(const uint32_t *weights, product *p);
/* One group of four rows. */
void gruard_four_rows(const uint32_t *weights, product *p);

#define BEGIN(name)                                                                   \
    ".syntax unified\n.section .text." name ", \"ax\"\n.align 2\n.global " name "\n" \
    ".thumb\n.thumb_func\n.type " name ", %function\n" name ":\n"
/* One word of weights with one of inputs: t, then s. */
#define PAIR(t, s, word, x)                                                           \
    "smlad " t ", " word ", " x ", " t "\nsxtb16 " word ", " word "\n"                 \
    "smlad " s ", " word ", " x ", " s "\n"
/* A pair's two sums, doubled. */
#define PART(t, s) "sub " t ", " t ", " s "\nasr " t ", " t ", #8\n"
/* A code from a sum, with multiplier, more, right and out in r8 to r11. */
#define CODE(sum)                                                                     \
    "smmlar " sum ", " sum ", r8, r9\nasr " sum ", " sum ", r10\n"                     \
    "ssat " sum ", #8, " sum "\nstrb " sum ", [r11], #1\n"

/* fours: of inputs that a turn of the inner loop takes. */
#define SIX_ROWS(name, fours)                                                         \
    __asm(BEGIN(name)                                                                 \
      "push {r1, r4-r11, lr}\n"                                                       \
      "ldr r12, [r1, #20]\n"                                                          \
      "ldr lr, [r1]\n"                                                                \
      "mov r1, r0\n"                                                                  \
      "mov r0, lr\n"                                                                  \
      "1:\n"                                                                          \
      "ldmia r1!, {r2-r7}\n"                                                          \
      "2:\n"                                                                          \
      ".rept " fours "\n"                                                             \
      "ldmia r0!, {r8, lr}\n"                                                         \
      "ldmia r1!, {r9, r10, r11}\n"                                                   \
      PAIR("r2", "r3", "r9", "r8") PAIR("r4", "r5", "r10", "r8") PAIR("r6", "r7", "r11", "r8") \
      "ldmia r1!, {r9, r10, r11}\n"                                                   \
      PAIR("r2", "r3", "r9", "lr") PAIR("r4", "r5", "r10", "lr") PAIR("r6", "r7", "r11", "lr") \
      ".endr\n"                                                                       \
      "subs r12, r12, #1\n"                                                           \
      "bne 2b\n"                                                                      \
      "ldr lr, [sp]\n"                                                                \
      "ldmia lr, {r0, r8-r12}\n"                                                      \
      PART("r2", "r3") PART("r4", "r5") PART("r6", "r7")                              \
      CODE("r2") CODE("r3") CODE("r4") CODE("r5") CODE("r6") CODE("r7")               \
      "ldr r8, [lr, #24]\n"                                                           \
      "str r11, [lr, #16]\n"                                                          \
      "cmp r1, r8\n"                                                                  \
      "bne 1b\n"                                                                      \
      "pop {r1, r4-r11, pc}\n")

SIX_ROWS("gruard_six_rows", "2");
SIX_ROWS("gruard_six_rows_by_sixteen", "4");

__asm(BEGIN("gruard_four_rows")
      "push {r1, r4-r11, lr}\n"
      "ldr r12, [r1, #20]\n"
      "ldr lr, [r1]\n"
      "ldmia r0!, {r2-r5}\n"
      "1:\n"
      ".rept 2\n"
      "ldmia lr!, {r6, r7}\n"
      "ldmia r0!, {r8-r11}\n"
      PAIR("r2", "r3", "r8", "r6") PAIR("r4", "r5", "r9", "r6")
      PAIR("r2", "r3", "r10", "r7") PAIR("r4", "r5", "r11", "r7")
      ".endr\n"
      "subs r12, r12, #1\n"
      "bne 1b\n"
      "ldmia r1, {r0, r8-r11}\n"
      PART("r2", "r3") PART("r4", "r5")
      CODE("r2") CODE("r3") CODE("r4") CODE("r5")
      "pop {r1, r4-r11, pc}\n");

/* Codes as doubled 16-bit lanes, eight a turn: of each four, the first with the third, the second
 * with the fourth. */
void gruard_widen_eights(const int8_t *input, uint32_t *x, uint32_t eights);

__asm(BEGIN("gruard_widen_eights")
      "push {r4, r5, r6, lr}\n"
      "1:\n"
      "ldr r3, [r0], #4\nldr r5, [r0], #4\n" /* an input may lie at any byte */
      "sxtb16 r4, r3, ror #8\nsxtb16 r3, r3\nsxtb16 r6, r5, ror #8\nsxtb16 r5, r5\n"
      "sadd16 r3, r3, r3\nsadd16 r4, r4, r4\nsadd16 r5, r5, r5\nsadd16 r6, r6, r6\n"
      "stmia r1!, {r3-r6}\n"
      "subs r2, r2, #1\n"
      "bne 1b\n"
      "pop {r4, r5, r6, pc}\n");

static void widen(const int8_t *input, uint32_t inputs, uint32_t *x) {
    const uint32_t eights = inputs / STEP, rest = inputs % STEP;
    if (eights) gruard_widen_eights(input, x, eights);
    if (rest) {
        int8_t last[STEP] = {0};
        for (uint32_t i = 0; i < rest; i++) last[i] = input[eights * STEP + i];
        gruard_widen_eights(last, x + eights * STEP / 2, 1);
    }
}

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    uint32_t x[WIDEST / 2];
    int8_t codes[GROUP];
    const uint32_t rest = o->count % GROUP, rows = o->count - rest;
    const uint32_t *packed = (const uint32_t *)(const void *)weights;
    const uint32_t *const end = packed + group_bytes(o->inputs, rows) / 4;
    product p = {x, o->multiplier, gruard_before_shift(o), -o->shift, output,
                 padded_inputs(o->inputs) / STEP, end};
    (void)bias;
    widen(input, o->inputs, x);
    if (rows && p.eights % 2 == 0) {
        p.eights /= 2;
        gruard_six_rows_by_sixteen(packed, &p);
        p.eights *= 2;
    } else if (rows) {
        gruard_six_rows(packed, &p);
    }
    if (rest) {
        const int whole = rest == REST; /* else its last codes are none */
        p.out = whole ? output + rows : codes;
        p.end = end + group_bytes(o->inputs, GROUP) / 4;
        if (rest > REST) gruard_six_rows(end, &p);
        else gruard_four_rows(end, &p);
        for (uint32_t i = whole ? 0 : rest; i-- > 0;) output[rows + i] = codes[i];
    }
    const int8_t lowest = (int8_t)o->lowest;
    for (uint32_t i = 0; lowest > -128 && i < o->count; i++)
        if (output[i] < lowest) output[i] = lowest;
}

/* ADD and SUB without a linear form, which are rare. */
void gruard_add(const gruard_operator *o, int8_t *arena, int32_t sign) {
    gruard_add_exactly(o, arena, sign);
}

/* Values a turn of the loops below. */
enum { TURN = 8 };
/* Sums in their linear form; `middle` of the table or, without one, not used. */
void gruard_linear_turns(const int8_t *left, const int8_t *right, int8_t *out,
                         const int32_t *factors, uint32_t turns);
void gruard_tabled_turns(const int8_t *left, const int8_t *right, int8_t *out,
                         const int32_t *factors, uint32_t turns, const int8_t *middle);

/* One sum, with its three integers in r5 to r7. */
#define SUM                                                                           \
    "ldrsb r8, [r0], #1\nldrsb r9, [r1], #1\n"                                         \
    "mla r8, r8, r5, r7\nmla r8, r9, r6, r8\nssat r8, #8, r8, asr #21\n"

__asm(BEGIN("gruard_linear_turns")
      "push {r4-r9, lr}\n"
      "ldr r12, [sp, #28]\n"
      "ldmia r3, {r5, r6, r7}\n"
      "1:\n.rept 8\n" SUM "strb r8, [r2], #1\n.endr\n"
      "subs r12, r12, #1\n"
      "bne 1b\n"
      "pop {r4-r9, pc}\n");

__asm(BEGIN("gruard_tabled_turns")
      "push {r4-r9, lr}\n"
      "ldrd r12, r4, [sp, #28]\n"
      "ldmia r3, {r5, r6, r7}\n"
      "1:\n.rept 8\n" SUM "ldrb r8, [r4, r8]\nstrb r8, [r2], #1\n.endr\n"
      "subs r12, r12, #1\n"
      "bne 1b\n"
      "pop {r4-r9, pc}\n");

void gruard_linear(const gruard_operator *o, int8_t *arena, const int8_t *table) {
    const int8_t *const left = arena + o->left, *const right = arena + o->right;
    int8_t *const out = arena + o->out;
    const int32_t factors[3] = {o->left_multiplier, o->right_multiplier, o->multiplier};
    const uint32_t turns = o->count / TURN;
    if (turns && table) gruard_tabled_turns(left, right, out, factors, turns, table + 128);
    else if (turns) gruard_linear_turns(left, right, out, factors, turns);
    for (uint32_t i = turns * TURN; i < o->count; i++) {
        out[i] = gruard_linear_code(left[i], right[i], o);
        if (table) out[i] = table[out[i] + 128];
    }
}

/* What the loop below reads, by its place; less: what is taken off left, doubled, and right. */
typedef struct {
    int32_t left_less, right_less, multiplier, more, right;
} elementwise;
void gruard_multiply_turns(const int8_t *left, const int8_t *right, int8_t *out,
                           const elementwise *e, uint32_t turns);

__asm(BEGIN("gruard_multiply_turns")
      "push {r4-r10, lr}\n"
      "ldr r12, [sp, #32]\n"
      "ldmia r3, {r4-r8}\n"
      "1:\n.rept 8\n"
      "ldrsb r9, [r0], #1\nldrsb r10, [r1], #1\n"
      "rsb r9, r4, r9, lsl #1\nsub r10, r10, r5\nmul r9, r9, r10\n"
      "smmlar r10, r9, r6, r7\nadd r10, r10, r9, asr #31\n" /* ties away from zero */
      "asr r10, r10, r8\nssat r10, #8, r10\nstrb r10, [r2], #1\n"
      ".endr\n"
      "subs r12, r12, #1\n"
      "bne 1b\n"
      "pop {r4-r10, pc}\n");

void gruard_multiply(const gruard_operator *o, int8_t *arena) {
    const int8_t *const left = arena + o->left, *const right = arena + o->right;
    int8_t *const out = arena + o->out;
    const uint32_t turns = gruard_is_plain(o->shift) ? o->count / TURN : 0;
    if (turns) {
        const elementwise e = {2 * o->left_zero, o->right_zero, o->multiplier,
                               gruard_before_shift(o), -o->shift};
        gruard_multiply_turns(left, right, out, &e, turns);
    }
    for (uint32_t i = turns * TURN; i < o->count; i++)
        out[i] = gruard_narrow(gruard_multiply_codes(left[i], right[i], o), -128);
}

void gruard_look_up(const int8_t *codes, int8_t *out, uint32_t count, const int8_t *table) {
    const int8_t *const middle = table + 128;
    for (int8_t *const end = out + count; out < end;) *out++ = middle[*codes++];
}
