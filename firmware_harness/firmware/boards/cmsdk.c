/* Arm's CMSDK peripherals of the MPS boards: UART, watchdog and the FPGA's counter. */
#include "board.h"
#include "place.h"

#define WORD(address) (*(volatile uint32_t *)(address))
#define UART_DATA WORD(UART)
#define UART_STATE WORD(UART + 0x04u)
#define UART_CTRL WORD(UART + 0x08u)
#define UART_BAUDDIV WORD(UART + 0x10u)
#define WATCHDOG_LOAD WORD(WATCHDOG)
#define WATCHDOG_CTRL WORD(WATCHDOG + 0x08u)
#define WATCHDOG_INTCLR WORD(WATCHDOG + 0x0Cu)
#define WATCHDOG_LOCK WORD(WATCHDOG + 0xC00u)
#define COUNTER WORD(FPGAIO + 0x18u)
#define PRESCALE WORD(FPGAIO + 0x1Cu)

enum { FULL = 1, ARRIVED = 2, SEND_AND_RECEIVE = 3, INTERRUPT_AND_RESET = 3 };
#define UNLOCK 0x1ACCE551u

void board_start(void) {
    UART_BAUDDIV = 16;
    UART_CTRL = SEND_AND_RECEIVE;
    PRESCALE = 0;
}

int board_receive(uint8_t *byte) {
    if (!(UART_STATE & ARRIVED)) return 0;
    *byte = (uint8_t)UART_DATA;
    return 1;
}

void board_send(uint8_t byte) {
    while (UART_STATE & FULL);
    UART_DATA = byte;
}

void board_arm_watchdog(uint32_t ms) {
    WATCHDOG_LOCK = UNLOCK;
    WATCHDOG_LOAD = WATCHDOG_HZ / 8u * ms / 125u;
    WATCHDOG_INTCLR = 1;
    WATCHDOG_CTRL = INTERRUPT_AND_RESET;
    WATCHDOG_LOCK = 0;
}

void board_feed_watchdog(void) {
    WATCHDOG_LOCK = UNLOCK;
    WATCHDOG_INTCLR = 1;
    WATCHDOG_LOCK = 0;
}

uint32_t board_ticks(void) { return COUNTER; }
