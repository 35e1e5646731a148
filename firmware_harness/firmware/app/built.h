/* What the build puts in: the bundle, its spare, and the vectors of the self-test. */
#ifndef BUILT_H
#define BUILT_H

#include <stdint.h>

/* The bundle, packed. */
extern const uint32_t gruard_blob[];
extern const uint32_t gruard_blob_size;
/* The same machine's fallback without a model: answers when the bundle cannot. */
extern const uint32_t gruard_spare[];
extern const uint32_t gruard_spare_size;
/* Raw readings [rows][channels], and the checksum of what they must leave behind: see selftest.c. */
extern const uint32_t gruard_golden[];
extern const uint32_t gruard_golden_rows;
extern const uint32_t gruard_golden_checksum;

#endif
