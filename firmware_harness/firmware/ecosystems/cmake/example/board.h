/* What main.c needs of a board. board_an386.c has it for Arm's MPS2 with image AN386. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

void board_start(void);

/* 1 where a byte has come. */
int board_get(char *byte);
void board_put(char byte);

/* Since the start; wraps around. */
uint32_t board_milliseconds(void);

/* Two seconds more until the watchdog stops the program, four until it resets the board: more than
 * main.c waits for the sensor. */
void board_feed_watchdog(void);

#endif
