/* The self-test: a short recording with a known result, row by row, while the detector answers. */
#ifndef SELFTEST_H
#define SELFTEST_H

#include "gruard.h"

typedef enum { SELFTEST_GOING_ON, SELFTEST_PASSED, SELFTEST_FAILED } selftest_result;

/* Start the self-test. It needs its own memory. */
gruard_error selftest_start(const gruard_model *model, void *memory, size_t size);
/* Replay one row; the result so far. */
selftest_result selftest_go_on(void);

#endif
