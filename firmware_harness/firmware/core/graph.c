/* The int8 graph of a step, operator after operator, as TFLite's built-in kernels compute it. */
#include <string.h>

#include "parts.h"

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
        case GRUARD_ADD: gruard_add(o, arena, 1); break;
        case GRUARD_SUB: gruard_add(o, arena, -1); break;
        case GRUARD_MUL: gruard_multiply(o, arena); break;
        case GRUARD_TABLE: look_up(o, arena, constant); break;
        case GRUARD_COPY: memmove(arena + o->out, arena + o->left, o->count); break;
        default: memcpy(arena + o->out, constant, o->count); break;
        }
    }
}
