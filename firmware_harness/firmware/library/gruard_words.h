/* A record in words, without printf. */
#ifndef GRUARD_WORDS_H
#define GRUARD_WORDS_H

#include "gruard.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { GRUARD_SENTENCE = 160 }; /* bytes that are enough, unless channels have very long names */

/* Write a record of `detector` as a sentence of at most `size` bytes, which ends with 0:
 *     no alarm: score 2.115 under threshold 14.076
 *     ALARM in ax, az: score 17.213 over threshold 14.076
 * with ", not valid" before the colon where no healthy, settled model has answered. */
void gruard_describe(const gruard_detector *detector, const gruard_record *record, char *sentence,
                     size_t size);

#ifdef __cplusplus
}
#endif

#endif
