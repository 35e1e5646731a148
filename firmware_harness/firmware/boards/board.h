/* What the application has of a board. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

#include "place.h"

void board_start(void);

/* 1 where a byte has come, which is then in `byte`. */
int board_receive(uint8_t *byte);
void board_send(uint8_t byte);

/* Interrupt `ms` after the last feed, reset as long after that; ms <= 1000. */
void board_arm_watchdog(uint32_t ms);
void board_feed_watchdog(void);
__attribute__((noreturn)) void board_reset(void);

/* Ticks since the last reset, BOARD_TICKS_PER_MS of them a millisecond; wraps around. */
uint32_t board_ticks(void);

/* The program, without the tables of built.c, and its CRC-32, which is put in after linking. */
extern uint32_t board_code_start[], board_code_end[];
extern volatile const uint32_t board_code_checksum;

/* The memory that nobody else has: from the linker script. */
extern uint32_t board_free_start[], board_free_end[];
/* The application's stack; below it are GUARD_BYTES that nobody may touch. */
extern uint32_t board_guard[], board_stack_low[], board_stack_top[];

/* What brought the processor here, for the application to note before the reset. pc, lr: of the
 * code that was interrupted; status: the processor's fault status, 0 for the watchdog. */
typedef enum { BOARD_WATCHDOG, BOARD_FAULT, BOARD_STACK } board_trouble;
void app_note(board_trouble trouble, uint32_t pc, uint32_t lr, uint32_t status);
/* Called again and again between the watchdog's interrupt and its reset. */
void app_expire(void);

int main(void); /* not expected to return */

#endif
