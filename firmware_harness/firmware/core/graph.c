/* The int8 graph of a step, operator after operator, as TFLite's built-in kernels compute it. */
#include <string.h>

#include "fixed.h"
#include "parts.h"

/* A host runs each loop at the width of its own vector unit. */
#if defined(GRUARD_HOST) && defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define GRUARD_WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define GRUARD_WIDE
#endif

/* TFLite shifts both addends by 20 bits to the left, scales them, and adds. */
GRUARD_WIDE static void add(const gruard_operator *operator, int8_t *arena, int32_t sign) {
    const gruard_operator o = *operator; /* a store to the arena can't change it now */
    const int8_t *restrict left = arena + o.left, *restrict right = arena + o.right;
    int8_t *restrict out = arena + o.out;
    for (uint32_t i = 0; i < o.count; i++) {
        const int32_t a = gruard_high((left[i] - o.left_zero) * (1 << 20), o.left_multiplier);
        const int32_t b = gruard_high((right[i] - o.right_zero) * (1 << 20), o.right_multiplier);
        const int32_t sum = gruard_halve_away(a, -o.left_shift) +
                            sign * gruard_halve_away(b, -o.right_shift);
        out[i] = gruard_narrow(gruard_scale(sum, o.multiplier, o.shift) + o.out_zero, -128);
    }
}

GRUARD_WIDE static void multiply(const gruard_operator *operator, int8_t *arena) {
    const gruard_operator o = *operator;
    const int8_t *restrict left = arena + o.left, *restrict right = arena + o.right;
    int8_t *restrict out = arena + o.out;
    for (uint32_t i = 0; i < o.count; i++) {
        const int32_t product = (left[i] - o.left_zero) * (right[i] - o.right_zero);
        const int32_t scaled = gruard_scale(product, o.multiplier, o.shift);
        out[i] = gruard_narrow(scaled + o.out_zero, -128);
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
