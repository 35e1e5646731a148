/* State that survives a reset: the cause of the reset, and the sample that is asked for next. */
#ifndef BLACK_BOX_H
#define BLACK_BOX_H

#include <stdint.h>

#include "board.h"
#include "gruard.h"

/* The stage of a turn. */
enum { STAGE_WAITING = 1, STAGE_STEPPING, STAGE_ANSWERING, STAGE_IDLE };

typedef struct {
    uint32_t magic;
    uint32_t cause, pc, lr, fault_status; /* of the reset that is coming, or came last */
    uint32_t stage;                       /* STAGE_… of the current turn */
    uint32_t resets;                      /* since power-on */
    uint32_t next, next_too;              /* sample that is asked for, and its complement */
    uint32_t injected_at, ended_at;       /* ticks before the reset; 0: nothing was injected */
    uint32_t magic_too;
} black_box;

extern volatile black_box box;

/* Open the box after a start. 1: power-on, and the box is cleared. 0: a reset. */
int box_open(void);

/* Set the sample that is asked for next. */
void box_set_next(uint32_t next);
/* Take the host's number if ours is damaged. */
void box_heal_next(uint32_t asked);

/* Note the cause, and reset. */
__attribute__((noreturn)) void box_note_and_reset(uint32_t cause);

#endif
