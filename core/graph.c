/* The int8 graph of a step, operator after operator, as TFLite's built-in kernels compute it. */
#if defined(__OPTIMIZE_SIZE__) && !defined(__clang__)
#pragma GCC optimize("O2") /* once an operator */
#endif
#include "parts.h"

static void copy(const int8_t *from, int8_t *to, uint32_t count) {
    for (; count >= 4; count -= 4, from += 4, to += 4) {
        uint32_t word; /* a small C library's memcpy takes one byte at a time */
        __builtin_memcpy(&word, from, 4);
        __builtin_memcpy(to, &word, 4);
    }
    while (count--) *to++ = *from++;
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
        case GRUARD_ADD: gruard_add(o, arena, 1); break;
        case GRUARD_SUB: gruard_add(o, arena, -1); break;
        case GRUARD_LINEAR: gruard_linear(o, arena, NULL); break;
        case GRUARD_LINEAR_TABLE: gruard_linear(o, arena, constant); break;
        case GRUARD_MUL: gruard_multiply(o, arena); break;
        case GRUARD_TABLE:
            gruard_look_up(arena + o->left, arena + o->out, o->count, constant);
            break;
        case GRUARD_COPY: copy(arena + o->left, arena + o->out, o->count); break;
        default: copy(constant, arena + o->out, o->count); break;
        }
    }
}
