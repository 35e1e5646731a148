/* Fault injection, only in test builds. */
#ifndef INJECT_H
#define INJECT_H

#include <stdint.h>

/* Inject a fault; returns only if the fault allows it. */
void inject(uint32_t injection);

#endif
