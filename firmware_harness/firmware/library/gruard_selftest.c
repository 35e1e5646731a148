#include "gruard_selftest.h"

#include "gruard_detector.h"
#include "gruard_golden.h"

/* What no macro says. Volatile, so that the processor computes it and not the compiler. */
static const char *inexact(void) {
    const volatile float one = 1.0f + 1.0f / 4096.0f, minus = -1.0f - 1.0f / 2048.0f;
    const volatile float magic = 12582912.0f, tiny = 2e-39f;
    const float x = one, y = minus, large = magic, small = tiny;
    /* x * x is 1 + 2^-11 + 2^-24, which rounds to 1 + 2^-11 unless the sum sees all of it. */
    if (x * x + y != 0.0f) return "multiply-adds are fused; compile with -ffp-contract=off";
    if ((x + large) - large != 1.0f) return "float sums are reordered; compile without -ffast-math";
    if (!(small * 0.5f > 0.0f)) return "the float unit flushes denormals to zero; switch that off";
    return NULL;
}

static uint32_t checksum_of(uint32_t checksum, const float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const float value = values[i] + 0.0f; /* turns -0.0 into 0.0 */
        checksum = gruard_crc(checksum, &value, sizeof value);
    }
    return checksum;
}

uint32_t gruard_state_checksum(const gruard_detector *detector) {
    const gruard_model *model = detector->model;
    uint32_t checksum = checksum_of(0, detector->forecast, model->channels);
    checksum = checksum_of(checksum, detector->gate, model->channels);
    checksum = checksum_of(checksum, detector->hidden, model->states);
    return checksum_of(checksum, detector->parts, gruard_heights(model));
}

const char *gruard_selftest(const gruard_model *model, gruard_detector *detector, void *memory,
                            size_t size) {
    const char *reason = inexact();
    if (reason) return reason;
    if (gruard_start(detector, model, memory, size)) return "too little memory for the detector";
    for (uint32_t row = 0; row < gruard_golden_rows; row++) {
        gruard_record unused;
        gruard_step(detector, (const gruard_float *)gruard_golden + row * model->channels, &unused);
    }
    if (gruard_state_checksum(detector) == gruard_golden_checksum) return NULL;
    return "the golden vectors give other bits; compiler, options or processor are at fault";
}
