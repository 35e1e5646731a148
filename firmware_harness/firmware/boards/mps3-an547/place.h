/* Arm MPS3 with FPGA image AN547: Cortex-M55, secure side. */
#ifndef PLACE_H
#define PLACE_H

#define UART 0x59303000u
#define WATCHDOG 0x5802e000u
#define WATCHDOG_HZ 32000u
#define FPGAIO 0x59302000u
#define BOARD_TICKS_PER_MS 20000u

#endif
