/* Run the golden rows through a separate detector, and compare the checksum of its state. */
#include "selftest.h"

#include "built.h"
#include "gruard_detector.h"

static gruard_detector trial;
static uint32_t row;

gruard_error selftest_start(const gruard_model *model, void *memory, size_t size) {
    row = 0;
    return gruard_start(&trial, model, memory, size);
}

static uint32_t checksum_of(uint32_t checksum, const float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const float value = values[i] + 0.0f; /* turns -0.0 into 0.0 */
        checksum = gruard_crc(checksum, &value, sizeof value);
    }
    return checksum;
}

static uint32_t left_behind(void) {
    const size_t n = trial.model->channels;
    uint32_t checksum = checksum_of(0, trial.forecast, n);
    checksum = checksum_of(checksum, trial.gate, n);
    checksum = checksum_of(checksum, trial.hidden, trial.model->states);
    return checksum_of(checksum, trial.parts, gruard_heights(trial.model));
}

selftest_result selftest_go_on(void) {
    gruard_record unused;
    gruard_step(&trial, (const gruard_float *)gruard_golden + row * trial.model->channels, &unused);
    if (++row < gruard_golden_rows) return SELFTEST_GOING_ON;
    return left_behind() == gruard_golden_checksum ? SELFTEST_PASSED : SELFTEST_FAILED;
}
