/* The int8 graph of a step, operator after operator, as TFLite's built-in kernels compute it. */
#include <string.h>

#include "fixed.h"
#include "parts.h"

/* A host runs each loop at the width of its own vector unit. */
#if defined(GRUARD_HOST) && defined(__x86_64__) && defined(__gnu_linux__) && \
    !defined(__clang__) && __GNUC__ >= 12
#define GRUARD_WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define GRUARD_WIDE
#endif

/* TFLite shifts both addends by 20 bits to the left, scales them, and adds. The vector code of its
 * ADD takes whole groups of 16 and rounds an addend once, what is left over and SUB twice. TensorFlow
 * Lite Micro has no vector code. */
enum { LEFT_SHIFT = 20, VECTOR = 16 };

static inline int32_t rounded_once(int32_t value, int32_t multiplier, int32_t shift) {
    return gruard_high(value * (1 << (LEFT_SHIFT + shift)), multiplier);
}

static inline int32_t rounded_twice(int32_t value, int32_t multiplier, int32_t shift) {
    return gruard_halve_away(gruard_high(value * (1 << LEFT_SHIFT), multiplier), -shift);
}

static inline int8_t narrow_sum(int32_t sum, const gruard_operator *o) {
    return gruard_narrow(gruard_plus(gruard_scale(sum, o->multiplier, o->shift), o->out_zero), -128);
}

GRUARD_WIDE static void add(const gruard_operator *operator, int8_t *arena, int32_t sign) {
    const gruard_operator o = *operator; /* a store to the arena can't change it now */
    const int8_t *restrict left = arena + o.left, *restrict right = arena + o.right;
    int8_t *restrict out = arena + o.out;
#ifdef GRUARD_TFLM
    const uint32_t whole = 0;
#else
    const uint32_t whole = sign > 0 ? o.count / VECTOR * VECTOR : 0;
#endif
    for (uint32_t i = 0; i < whole; i++)
        out[i] = narrow_sum(
            rounded_once(left[i] - o.left_zero, o.left_multiplier, o.left_shift) +
            rounded_once(right[i] - o.right_zero, o.right_multiplier, o.right_shift), &o);
    for (uint32_t i = whole; i < o.count; i++)
        out[i] = narrow_sum(
            rounded_twice(left[i] - o.left_zero, o.left_multiplier, o.left_shift) + sign *
            rounded_twice(right[i] - o.right_zero, o.right_multiplier, o.right_shift), &o);
}

GRUARD_WIDE static void multiply(const gruard_operator *operator, int8_t *arena) {
    const gruard_operator o = *operator;
    const int8_t *restrict left = arena + o.left, *restrict right = arena + o.right;
    int8_t *restrict out = arena + o.out;
    for (uint32_t i = 0; i < o.count; i++) {
        const int32_t product = (left[i] - o.left_zero) * (right[i] - o.right_zero);
        const int32_t scaled = gruard_scale(product, o.multiplier, o.shift);
        out[i] = gruard_narrow(gruard_plus(scaled, o.out_zero), -128);
    }
}

static void look_up(const gruard_operator *o, int8_t *arena, const int8_t *table) {
    const int8_t *left = arena + o->left;
    int8_t *out = arena + o->out;
    for (uint32_t i = 0; i < o->count; i++) out[i] = table[left[i] + 128];
}

void gruard_run_graph(const gruard_model *model, int8_t *arena) {
    for (uint32_t i = 0; i < model->operators; i++) {
        const gruard_operator *o = &model->program[i];
        const int8_t *constant = model->bytes + o->constant;
        switch (o->kind) {
        case GRUARD_FULLY_CONNECTED:
            gruard_fully_connected(arena + o->left, constant, model->integers + o->bias,
                                   arena + o->out, o);
            break;
        case GRUARD_ADD: add(o, arena, 1); break;
        case GRUARD_SUB: add(o, arena, -1); break;
        case GRUARD_MUL: multiply(o, arena); break;
        case GRUARD_TABLE: look_up(o, arena, constant); break;
        case GRUARD_COPY: memmove(arena + o->out, arena + o->left, o->count); break;
        default: memcpy(arena + o->out, constant, o->count); break;
        }
    }
}
