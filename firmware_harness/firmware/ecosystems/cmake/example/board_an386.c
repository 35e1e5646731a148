/* Arm MPS2 with FPGA image AN386, a Cortex-M4F at 25 MHz: vectors, UART 0, watchdog, counter. */
#include "board.h"

#define WORD(address) (*(volatile uint32_t *)(address))
#define UART_DATA WORD(0x40004000u)
#define UART_STATE WORD(0x40004004u)
#define UART_CTRL WORD(0x40004008u)
#define UART_BAUDDIV WORD(0x40004010u)
#define WATCHDOG_LOAD WORD(0x40008000u)
#define WATCHDOG_CTRL WORD(0x40008008u)
#define WATCHDOG_INTCLR WORD(0x4000800Cu)
#define COUNTER WORD(0x40028018u)
#define CPACR WORD(0xE000ED88u)

enum { TICKS_PER_MS = 25000, SEND_AND_RECEIVE = 3, INTERRUPT_AND_RESET = 3, FULL = 1, ARRIVED = 2 };

extern uint32_t stack_top[], data_source[], data_start[], data_end[], bss_start[], bss_end[];
int main(void);
void begin(void);

void board_start(void) {
    UART_BAUDDIV = 16;
    UART_CTRL = SEND_AND_RECEIVE;
    WATCHDOG_LOAD = 2000u * TICKS_PER_MS; /* to the interrupt, and once more to the reset */
    WATCHDOG_CTRL = INTERRUPT_AND_RESET;
}

int board_get(char *byte) {
    if (!(UART_STATE & ARRIVED)) return 0;
    *byte = (char)UART_DATA;
    return 1;
}

void board_put(char byte) {
    while (UART_STATE & FULL);
    UART_DATA = (uint8_t)byte;
}

uint32_t board_milliseconds(void) {
    static uint32_t milliseconds, last;
    const uint32_t gone = (COUNTER - last) / TICKS_PER_MS;
    last += gone * TICKS_PER_MS;
    return milliseconds += gone;
}

void board_feed_watchdog(void) { WATCHDOG_INTCLR = 1; }

/* The detector computes in floats: the unit is switched on before any of them is touched. */
__attribute__((noreturn)) void begin(void) {
    CPACR |= 0xFu << 20;
    __asm volatile("dsb\n isb" ::: "memory");
    for (uint32_t *from = data_source, *to = data_start; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0;
    main();
    for (;;);
}

/* Whatever goes wrong: the watchdog ends it. */
static void stop(void) {
    for (;;);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16 + 32])(void) = {
    (void (*)(void))stack_top, begin, [2 ... 47] = stop,
};
