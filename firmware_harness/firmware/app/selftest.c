/* Run the golden rows through a separate detector, and compare the checksum of its state. */
#include "selftest.h"

#include "gruard_detector.h"
#include "gruard_golden.h"
#include "gruard_selftest.h"

static gruard_detector trial;
static uint32_t row;

gruard_error selftest_start(const gruard_model *model, void *memory, size_t size) {
    row = 0;
    return gruard_start(&trial, model, memory, size);
}

selftest_result selftest_go_on(void) {
    gruard_record unused;
    gruard_step(&trial, (const gruard_float *)gruard_golden + row * trial.model->channels, &unused);
    if (++row < gruard_golden_rows) return SELFTEST_GOING_ON;
    const int same = gruard_state_checksum(&trial) == gruard_golden_checksum;
    return same ? SELFTEST_PASSED : SELFTEST_FAILED;
}
