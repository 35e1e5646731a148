/* Memory for detectors: allocated once, never freed. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stddef.h>

#include "board.h"

/* `size` bytes at a multiple of 8, or NULL if not enough memory is left. */
static inline void *memory_take(size_t size) {
    static uint8_t *next;
    if (!next) next = (uint8_t *)(((uintptr_t)board_free_start + 7u) & ~(uintptr_t)7u);
    if (size > (size_t)((uint8_t *)board_free_end - next)) return NULL;
    void *taken = next;
    next += (size + 7u) & ~(size_t)7u;
    return taken;
}

#endif
