/* What survives a reset: why it came, and what is to be done after it. */
#ifndef BLACK_BOX_H
#define BLACK_BOX_H

#include <stdint.h>

#include "board.h"
#include "gruard.h"

/* How far a turn has come. */
enum { STAGE_WAITING = 1, STAGE_STEPPING, STAGE_ANSWERING, STAGE_IDLE };

typedef struct {
    uint32_t magic;
    uint32_t cause, pc, lr, fault_status; /* of the reset that is coming, or came last */
    uint32_t stage;                       /* STAGE_… of the turn at hand */
    uint32_t resets;                      /* since the power came */
    uint32_t next, next_too;              /* sample that is asked for, and its complement */
    uint32_t injected_at, ended_at;       /* ticks before the reset; 0: nothing was injected */
    uint32_t magic_too;
} black_box;

extern volatile black_box box;

/* Look into the box after a start. 1: the power came, and the box is empty now. 0: a reset. */
int box_open(void);

/* What is asked for next. */
void box_set_next(uint32_t next);
/* Where the number has been damaged, the host's is as good. */
void box_heal_next(uint32_t asked);

/* Note why, and reset. */
__attribute__((noreturn)) void box_give_up(uint32_t cause);

#endif
