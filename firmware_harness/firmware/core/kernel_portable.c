/* FULLY_CONNECTED in portable C: weights [outputs][inputs], one row after the other. */
#include "fixed.h"
#include "parts.h"

const uint32_t gruard_layout = GRUARD_ROWS;

uint32_t gruard_weight_bytes(uint32_t inputs, uint32_t outputs) { return inputs * outputs; }

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    for (uint32_t row = 0; row < o->count; row++, weights += o->inputs) {
        int32_t sum = bias[row]; /* the input's zero point is in it */
        for (uint32_t i = 0; i < o->inputs; i++) sum += (int32_t)input[i] * weights[i];
        sum = gruard_scale_product(sum, o->multiplier, o->shift);
        output[row] = gruard_narrow(sum + o->out_zero, o->lowest);
    }
}
