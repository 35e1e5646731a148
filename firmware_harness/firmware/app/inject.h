/* Faults on demand, in test builds alone. */
#ifndef INJECT_H
#define INJECT_H

#include <stdint.h>

/* Do it, and return if that leaves anything to return to. */
void inject(uint32_t injection);

#endif
