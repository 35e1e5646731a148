/* Fill the memory that C expects to be filled; sections.ld has the places. */
#ifndef SECTIONS_H
#define SECTIONS_H

#include <stdint.h>

extern uint32_t board_data_source[], board_data_start[], board_data_end[];
extern uint32_t board_bss_start[], board_bss_end[];

static inline void fill_sections(void) {
    for (uint32_t *from = board_data_source, *to = board_data_start; to < board_data_end;)
        *to++ = *from++;
    for (uint32_t *to = board_bss_start; to < board_bss_end;) *to++ = 0;
}

#endif
