/* libFuzzer's target: open any bytes as a blob and, if it is accepted, run it over unusual rows.
 *
 * Magic, version, size and checksum are repaired first, because otherwise every change would be
 * refused. The blob is in a block of exactly its size, so that the sanitisers see overruns. Link it
 * without crc.c, which would take most of the time.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "constants.h"
#include "gruard_detector.h"

enum { STEPS = 8, MOST_ROW = GRUARD_MOST_CHANNELS };

static const float READINGS[] = {
    0.0f, 1.0f, NAN, -3.5f, INFINITY, 1e-41f, 1e29f, 250.0f, -1e38f, 50.0f, 1e-3f,
};

/* Always return the checksum in the header. */
uint32_t gruard_crc(uint32_t crc, const void *data, size_t size) {
    (void)size;
    return crc + ((const uint32_t *)data)[-1];
}

static void repair(uint32_t *blob, size_t size) {
    blob[GRUARD_H_MAGIC] = GRUARD_MAGIC;
    blob[GRUARD_H_VERSION] = GRUARD_VERSION;
    blob[GRUARD_H_SIZE] = (uint32_t)size;
}

static void run(const gruard_model *model) {
    const size_t size = gruard_memory(model);
    gruard_detector detector;
    gruard_record record;
    float values[MOST_ROW];
    void *memory = malloc(size);
    if (!memory || gruard_start(&detector, model, memory, size)) abort();
    for (uint32_t step = 0; step < STEPS; step++) {
        for (uint32_t i = 0; i < model->channels; i++)
            values[i] = READINGS[(step * 3 + i) % (sizeof READINGS / sizeof *READINGS)];
        if (step == STEPS / 2) gruard_reset(&detector);
        gruard_step(&detector, values, &record);
    }
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

uint32_t fuzz_taken; /* number of accepted blobs */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size -= size % 4;
    if (size < 4 * GRUARD_H_CHANNELS) return 0;
    uint32_t *blob = malloc(size);
    if (!blob) abort();
    memcpy(blob, data, size);
    repair(blob, size);
    gruard_model model;
    if (gruard_open(&model, blob, size) == GRUARD_OK) {
        run(&model);
        fuzz_taken++;
    }
    free(blob);
    return 0;
}
