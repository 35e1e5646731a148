/* The detector in service, twice: two models, two states, and every sample goes through both. A
 * record is sent only if both agree. The memory that they share, bundle and program, is checked
 * piece by piece between samples, and as a whole before an alarm begins or ends.
 */
#include "engine.h"

#include <string.h>

#include "board.h"
#include "built.h"
#include "constants.h"
#include "gruard_detector.h"
#include "memory.h"

enum { PIECE = 1024, COVERED_FROM = 4 * GRUARD_H_CHANNELS,
       RETURNING = 0x5A3C96E1 /* a flipped bit makes no such word */ };

typedef struct {
    gruard_model model;
    gruard_detector detector;
    void *memory;
} copy;

/* Memory that is checked. */
typedef struct {
    const uint8_t *from;
    uint32_t size, wanted, cause;
} stretch;

static engine_state state;
static copy copies[2];
static size_t memory_size;
static const uint32_t *blob;
static uint32_t walking, walked, walked_checksum, alarmed;
static uint32_t restarted; /* RETURNING until the first record of the model after a restart */

static gruard_error open_copy(copy *to, uint32_t size) {
    gruard_error error = gruard_open(&to->model, blob, size);
    if (error) return error;
    memory_size = gruard_memory(&to->model);
    to->memory = memory_take(memory_size);
    if (!to->memory) return GRUARD_NO_MEMORY;
    return gruard_start(&to->detector, &to->model, to->memory, memory_size);
}

static gruard_error open_blob(const uint32_t *wanted, uint32_t size) {
    blob = wanted;
    const gruard_error error = open_copy(&copies[0], size);
    return error ? error : open_copy(&copies[1], size);
}

static gruard_error open_selftest(void) {
    void *memory = memory_take(memory_size);
    if (!memory) return GRUARD_NO_MEMORY;
    return selftest_start(&copies[0].model, memory, memory_size);
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

static stretch program(void) {
    const uint8_t *from = (const uint8_t *)board_code_start;
    const uint32_t size = (uint32_t)((const uint8_t *)board_code_end - from);
    return (stretch){from, size, board_code_checksum, CAUSE_CODE};
}

static stretch bundle(void) {
    const uint8_t *from = (const uint8_t *)blob + COVERED_FROM;
    return (stretch){from, blob[GRUARD_H_SIZE] - COVERED_FROM, blob[GRUARD_H_CRC], CAUSE_WEIGHTS};
}

static int program_is_sound(void) {
    const stretch whole = program();
    return gruard_crc(0, whole.from, whole.size) == whole.wanted;
}

void engine_start(int afresh, int spare) {
    memset(&state, 0, sizeof state);
    if (!spare && !program_is_sound()) state.refusal = GRUARD_DAMAGED;
    else if (!spare) state.refusal = open_blob(gruard_blob, gruard_blob_size);
    if (!spare && !state.refusal) state.refusal = open_selftest();
    if (!spare && !state.refusal && afresh) test(1);
    if (spare || state.refusal || state.selftest == SELFTEST_FAILED) take_spare();
    else state.service = afresh ? SERVICE_MODEL : SERVICE_DISTRUSTED;
    state.channels = state.service == SERVICE_NONE ? 0 : copies[0].model.channels;
    restarted = afresh ? 0 : RETURNING;
}

const engine_state *engine_look(void) { return &state; }

static void distrust_copies(void) {
    for (copy *each = copies; each < copies + 2; each++) gruard_distrust(&each->detector);
}

/* The fallback answers until the self-test has passed; after that the core decides when model and
 * fallback have agreed for long enough. */
static void settle_trust(void) {
    if (state.service != SERVICE_DISTRUSTED) return;
    if (state.selftest != SELFTEST_PASSED) distrust_copies();
    else if (!copies[0].detector.tiers.distrusted) state.service = SERVICE_MODEL;
}

static void step(copy *with, const float *values, gruard_record *record) {
    if (state.service == SERVICE_SPARE) gruard_step_fallback(&with->detector, values, record);
    else gruard_step(&with->detector, values, record);
}

static int alike(const void *one, const void *other, size_t size) {
    const uint32_t *a = one, *b = other;
    for (size_t i = 0; i < size / 4; i++)
        if (a[i] != b[i]) return 0;
    return 1;
}

/* Whether both copies are equal, as they must be between two samples. */
static int copies_are_alike(void) {
    return copies[0].model.channels == state.channels &&
           copies[0].detector.tiers.index == copies[1].detector.tiers.index &&
           alike(&copies[0].model, &copies[1].model, sizeof copies[0].model) &&
           alike(copies[0].memory, copies[1].memory, memory_size);
}

/* Check the next piece; CAUSE_POWER, or the cause if a whole stretch has changed. */
static uint32_t walk(void) {
    const stretch whole = walking ? program() : bundle();
    const uint32_t piece = whole.size - walked < PIECE ? whole.size - walked : PIECE;
    walked_checksum = gruard_crc(walked_checksum, whole.from + walked, piece);
    walked += piece;
    if (walked < whole.size) return CAUSE_POWER;
    const int same = walked_checksum == whole.wanted;
    walked = walked_checksum = 0;
    if (walking) state.walks++;
    /* The spare cannot be replaced by anything, and its records are marked anyway. */
    walking = !walking && state.service != SERVICE_SPARE;
    return same ? CAUSE_POWER : whole.cause;
}

static uint32_t walk_all(void) {
    const uint32_t end = state.walks + 1;
    uint32_t cause = CAUSE_POWER;
    walking = walked = walked_checksum = 0;
    while (!cause && state.walks != end && state.service != SERVICE_SPARE) cause = walk();
    return cause;
}

uint32_t engine_step(const float *values, gruard_record *record) {
    static gruard_record again;
    settle_trust();
    step(&copies[0], values, record);
    step(&copies[1], values, &again);
    if (!alike(record, &again, sizeof again) || !copies_are_alike()) return CAUSE_STATE;
    state.healthy = record->valid ? state.healthy + 1 : 0;
    if (restarted == RETURNING && record->valid) {
        record->flags |= GRUARD_RESTARTED;
        restarted = 0;
    }
    const uint32_t before = alarmed;
    alarmed = record->alarm;
    return alarmed == before ? CAUSE_POWER : walk_all();
}

void engine_distrust(void) {
    restarted = RETURNING;
    if (state.service != SERVICE_MODEL) return;
    state.service = SERVICE_DISTRUSTED;
    distrust_copies();
}

int engine_proven(void) {
    return state.service == SERVICE_MODEL && state.healthy &&
           state.healthy >= copies[0].model.window;
}

uint64_t engine_steps(void) { return copies[0].detector.tiers.index; }

uint32_t engine_idle(void) {
    if (state.service == SERVICE_NONE) return CAUSE_POWER;
    if (!copies_are_alike()) return CAUSE_STATE;
    if (state.service != SERVICE_SPARE && state.selftest == SELFTEST_GOING_ON) test(0);
    return walk();
}

gruard_error engine_try(const void *tried, size_t size) {
    gruard_model unused;
    return gruard_open(&unused, tried, size);
}

#ifdef GRUARD_TEST
void engine_flip_state(void) { copies[0].detector.tiers.index ^= 1u << 20; }
#endif
