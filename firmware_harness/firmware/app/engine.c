/* The detector in service. Its state is sealed with a checksum after each step and looked at before
 * the next; its bundle is walked piece by piece in between.
 */
#include "engine.h"

#include <string.h>

#include "built.h"
#include "memory.h"

enum { PIECE = 1024, CHECKSUM_WORD = 3, COVERED_FROM = 16, RESTARTED = 256 };

static engine_state state;
static gruard_model model;
static gruard_detector detector;
static void *memory;
static size_t memory_size;
static const uint32_t *blob;
static void *selftest_memory;
static uint32_t walked, walked_checksum, seal, restarted;
static uint64_t steps;

static uint32_t sealed(uint32_t sum, const void *data, size_t size) {
    const uint32_t *words = data;
    for (size_t i = 0; i < size / 4; i++) sum = ((sum << 5) | (sum >> 27)) + words[i];
    return sum;
}

static uint32_t seal_now(void) {
    uint32_t sum = sealed(1, &model, sizeof model);
    sum = sealed(sum, &detector, sizeof detector);
    return sealed(sum, memory, memory_size);
}

static gruard_error open_blob(const uint32_t *wanted, uint32_t size) {
    gruard_error error = gruard_open(&model, wanted, size);
    if (error) return error;
    blob = wanted;
    memory_size = gruard_memory(&model);
    memory = memory_take(memory_size);
    if (!memory) return GRUARD_NO_MEMORY;
    return gruard_start(&detector, &model, memory, memory_size);
}

static gruard_error open_selftest(void) {
    selftest_memory = memory_take(memory_size);
    if (!selftest_memory) return GRUARD_NO_MEMORY;
    return selftest_start(&model, selftest_memory, memory_size);
}

static void take_spare(void) {
    const gruard_error error = open_blob(gruard_spare, gruard_spare_size);
    if (error) state.refusal = error;
    state.service = error ? SERVICE_NONE : SERVICE_SPARE;
}

static void test(int to_the_end) {
    do {
        state.selftest = selftest_go_on();
    } while (to_the_end && state.selftest == SELFTEST_GOING_ON);
}

void engine_start(int afresh, int spare) {
    memset(&state, 0, sizeof state);
    state.refusal = spare ? GRUARD_OK : open_blob(gruard_blob, gruard_blob_size);
    if (!spare && !state.refusal) state.refusal = open_selftest();
    if (!spare && !state.refusal && afresh) test(1);
    if (spare || state.refusal || state.selftest == SELFTEST_FAILED) take_spare();
    else state.service = afresh ? SERVICE_MODEL : SERVICE_DISTRUSTED;
    state.channels = state.service == SERVICE_NONE ? 0 : model.channels;
    restarted = !afresh;
    seal = seal_now();
}

const engine_state *engine_look(void) { return &state; }

/* The state, or what describes it, is not what the last step left: start it anew, distrusted. */
static void repair(void) {
    const int spare = state.service == SERVICE_SPARE;
    gruard_open(&model, spare ? gruard_spare : gruard_blob,
                spare ? gruard_spare_size : gruard_blob_size);
    gruard_start(&detector, &model, memory, memory_size);
    state.repairs++;
    restarted = 1;
    if (spare) return;
    state.service = SERVICE_DISTRUSTED;
    gruard_distrust(&detector);
    state.selftest = SELFTEST_GOING_ON;
    selftest_start(&model, selftest_memory, memory_size);
}

/* The fallback answers as long as the self-test has not passed; then the core itself decides when
 * model and fallback have agreed for long enough. */
static void settle_trust(void) {
    if (state.service != SERVICE_DISTRUSTED) return;
    if (state.selftest != SELFTEST_PASSED) gruard_distrust(&detector);
    else if (!detector.tiers.distrusted) state.service = SERVICE_MODEL;
}

void engine_step(const float *values, gruard_record *record) {
    if (seal != seal_now()) repair();
    settle_trust();
    const uint64_t before = detector.tiers.index;
    if (state.service == SERVICE_SPARE) gruard_step_fallback(&detector, values, record);
    else gruard_step(&detector, values, record);
    steps += detector.tiers.index - before;
    state.healthy = record->valid ? state.healthy + 1 : 0;
    if (restarted && record->valid) {
        record->flags |= RESTARTED;
        restarted = 0;
    }
    seal = seal_now();
}

int engine_proven(void) {
    return state.service == SERVICE_MODEL && state.healthy && state.healthy >= model.window;
}

uint64_t engine_steps(void) { return steps; }

static int walk(void) {
    const uint32_t size = blob[2]; /* as the reader has found it to be */
    if (walked < COVERED_FROM) walked = COVERED_FROM;
    const uint32_t piece = size - walked < PIECE ? size - walked : PIECE;
    walked_checksum = gruard_crc(walked_checksum, (const uint8_t *)blob + walked, piece);
    walked += piece;
    if (walked < size) return 1;
    const int same = walked_checksum == blob[CHECKSUM_WORD];
    walked = walked_checksum = 0;
    state.walks++;
    return same;
}

int engine_idle(void) {
    if (state.service == SERVICE_NONE) return 1;
    if (state.service != SERVICE_SPARE && state.selftest == SELFTEST_GOING_ON) test(0);
    return walk();
}

gruard_error engine_try(const void *tried, size_t size) {
    gruard_model unused;
    return gruard_open(&unused, tried, size);
}

#ifdef GRUARD_TEST
void engine_flip_state(void) { *(volatile uint32_t *)memory ^= 1u << 30; }
#endif
