/* Arm MPS2 with FPGA image AN505: Cortex-M33 with FPU, secure side. */
#ifndef PLACE_H
#define PLACE_H

#define UART 0x50200000u
#define WATCHDOG 0x5002e000u
#define WATCHDOG_HZ 32768u
#define FPGAIO 0x50302000u
#define BOARD_TICKS_PER_MS 20000u

#endif
