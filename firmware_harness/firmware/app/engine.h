/* The detector in service: doubled, tested, and replaced by a spare when it cannot be trusted. */
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
    uint32_t healthy; /* samples in a row that the model has answered */
} engine_state;

/* afresh: the power came, and nothing is known against the model: the self-test is done here and
 * now. Otherwise the model is distrusted until the self-test, a row a step, and the fallback agree
 * with it. spare: the model gets no further chance. */
void engine_start(int afresh, int spare);
const engine_state *engine_look(void);

/* The record for raw readings [channels]; only where there is a detector. CAUSE_POWER, or why it must
 * not be told. */
uint32_t engine_step(const float *values, gruard_record *record);
/* The samples have lost their order: the model is distrusted as after a reset, and marked. */
void engine_distrust(void);
/* Whether the model has answered for so long that former resets no longer count. */
int engine_proven(void);
/* Steps that were completed, by the core's own count. */
uint64_t engine_steps(void);

/* What there is time for between two samples: a piece of a checksum, a row of the self-test.
 * CAUSE_POWER, or what is no longer what it was. */
uint32_t engine_idle(void);

/* What gruard_open() says of a blob. */
gruard_error engine_try(const void *blob, size_t size);

#ifdef GRUARD_TEST
void engine_flip_state(void);
#endif

#endif
