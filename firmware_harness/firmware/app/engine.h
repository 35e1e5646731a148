/* The detector in service: run twice, tested, and replaced by a spare when it cannot be trusted. */
#ifndef ENGINE_H
#define ENGINE_H

#include "gruard.h"
#include "protocol.h"
#include "selftest.h"

typedef struct {
    uint32_t service;  /* SERVICE_… */
    gruard_error refusal;
    uint32_t channels;
    selftest_result selftest;
    uint32_t walks;
    uint32_t healthy; /* consecutive samples that the model has answered */
} engine_state;

/* afresh: after power-on; the whole self-test runs here. Otherwise the model is distrusted until the
 * self-test, a row per step, has passed and the fallback agrees. spare: use only the spare. */
void engine_start(int afresh, int spare);
const engine_state *engine_look(void);

/* Compute the record for raw readings [channels]; requires a detector. CAUSE_POWER, or the cause of
 * a reset, and the record must not be sent. */
uint32_t engine_step(const float *values, gruard_record *record);
/* Distrust the model as after a reset, and mark its records: the samples have lost their order. */
void engine_distrust(void);
/* Whether the model has answered for so long that earlier resets no longer count. */
int engine_proven(void);
/* Steps that were completed, by the core's own count. */
uint64_t engine_steps(void);

/* Do the work between two samples: a piece of a checksum, a row of the self-test. CAUSE_POWER, or
 * the cause of a reset. */
uint32_t engine_idle(void);

/* The result of gruard_open() for a blob. */
gruard_error engine_try(const void *blob, size_t size);

#ifdef GRUARD_TEST
void engine_flip_state(void);
#endif

#endif
