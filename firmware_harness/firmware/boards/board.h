/* The interface of a board for the application. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

/* Only on boards with a firmware: what it needs of the peripherals. */
void board_start(void);

/* 1 if a byte has arrived, which is then in `byte`. */
int board_receive(uint8_t *byte);
void board_send(uint8_t byte);

/* Interrupt `ms` after the last feed, reset as long after that; ms <= 1000. */
void board_arm_watchdog(uint32_t ms);
void board_feed_watchdog(void);
__attribute__((noreturn)) void board_reset(void);

/* Ticks since the last reset, BOARD_TICKS_PER_MS of place.h per millisecond; wraps around. */
uint32_t board_ticks(void);

/* The program, without the tables of built.c, and its CRC-32, which is written after linking. */
extern uint32_t board_code_start[], board_code_end[];
extern volatile const uint32_t board_code_checksum;

/* The free memory, from the linker script. */
extern uint32_t board_free_start[], board_free_end[];
/* The application's stack; accessing the GUARD_BYTES below it is a fault. */
extern uint32_t board_guard[], board_stack_low[], board_stack_top[];

/* Called before a reset, so that the application can note its cause. pc, lr: of the interrupted
 * code; status: the processor's fault status, 0 for the watchdog. */
typedef enum { BOARD_WATCHDOG, BOARD_FAULT, BOARD_STACK } board_trouble;
void app_note(board_trouble trouble, uint32_t pc, uint32_t lr, uint32_t status);
/* Called repeatedly between the watchdog's interrupt and its reset. */
void app_expire(void);

int main(void); /* does not return */

#endif
