/* Parts of a step, as the core marks their ends. */
#ifndef COST_H
#define COST_H

#include <stdint.h>

enum { COST_PARTS = 8 };

void cost_mark(uint32_t part);

#endif
