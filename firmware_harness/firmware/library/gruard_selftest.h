/* Does this build give the bits that were proven? */
#ifndef GRUARD_SELFTEST_H
#define GRUARD_SELFTEST_H

#include "gruard.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Test this processor's and this build's arithmetic, then replay golden vectors and compare the
 * detector's state bit for bit. NULL if passed, else the reason in words. Call it before
 * gruard_start(): it uses `detector` and `size` bytes of `memory`, and leaves neither usable. */
const char *gruard_selftest(const gruard_model *model, gruard_detector *detector, void *memory,
                            size_t size);

/* The checksum of a detector's state that gruard_golden_checksum is compared with. */
uint32_t gruard_state_checksum(const gruard_detector *detector);

#ifdef __cplusplus
}
#endif

#endif
