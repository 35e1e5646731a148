/* Golden vectors: raw readings [rows][channels], and the checksum of the state after them. */
#ifndef GRUARD_GOLDEN_H
#define GRUARD_GOLDEN_H

#include <stdint.h>

extern const uint32_t gruard_golden[];
extern const uint32_t gruard_golden_rows;
extern const uint32_t gruard_golden_checksum;

#endif
