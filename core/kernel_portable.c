/* The arithmetic in portable C: weights [outputs][inputs], one row after the other. */
#include "fixed.h"
#include "parts.h"

const uint32_t gruard_layout = GRUARD_ROWS;

uint32_t gruard_weight_bytes(const gruard_operator *o) { return o->inputs * o->count; }

uint32_t gruard_biases(uint32_t outputs) { return outputs; }

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    for (uint32_t row = 0; row < o->count; row++, weights += o->inputs) {
        int32_t sum = 0;
        for (uint32_t i = 0; i < o->inputs; i++) sum += (int32_t)input[i] * weights[i];
        sum = gruard_plus(sum, bias[row]); /* the input's zero point is in it */
        sum = gruard_scale_product(sum, o->multiplier, o->shift);
        output[row] = gruard_narrow(gruard_plus(sum, o->out_zero), o->lowest);
    }
}

void gruard_add(const gruard_operator *o, int8_t *arena, int32_t sign) {
    const int8_t *left = arena + o->left, *right = arena + o->right;
    int8_t *out = arena + o->out;
    const uint32_t once = gruard_rounded_once(o->count, sign);
    for (uint32_t i = 0; i < once; i++)
        out[i] = gruard_narrow(gruard_add_once(left[i], right[i], o), -128);
    for (uint32_t i = once; i < o->count; i++)
        out[i] = gruard_narrow(gruard_add_twice(left[i], right[i], sign, o), -128);
}

void gruard_multiply(const gruard_operator *o, int8_t *arena) {
    const int8_t *left = arena + o->left, *right = arena + o->right;
    for (uint32_t i = 0; i < o->count; i++)
        arena[o->out + i] = gruard_narrow(gruard_multiply_codes(left[i], right[i], o), -128);
}

void gruard_look_up(const int8_t *codes, int8_t *out, uint32_t count, const int8_t *table) {
    const int8_t *const middle = table + 128;
    for (int8_t *const end = out + count; out < end;) *out++ = middle[*codes++];
}

void gruard_linear(const gruard_operator *operator, int8_t *arena, const int8_t *table) {
    const gruard_operator o = *operator; /* no store to the arena can change it */
    const int8_t *restrict left = arena + o.left, *restrict right = arena + o.right;
    int8_t *restrict out = arena + o.out;
    for (uint32_t i = 0; i < o.count; i++) out[i] = gruard_linear_code(left[i], right[i], &o);
    if (table) gruard_look_up(out, out, o.count, table);
}
