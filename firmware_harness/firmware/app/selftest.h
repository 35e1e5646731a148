/* A short recording whose outcome is known, replayed beside the service. */
#ifndef SELFTEST_H
#define SELFTEST_H

#include "gruard.h"

typedef enum { SELFTEST_GOING_ON, SELFTEST_PASSED, SELFTEST_FAILED } selftest_result;

/* Begin anew. The memory is the self-test's own. */
gruard_error selftest_start(const gruard_model *model, void *memory, size_t size);
/* One row; what is known by then. */
selftest_result selftest_go_on(void);

#endif
