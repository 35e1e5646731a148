/* Arm MPS2 with FPGA image AN385 (Cortex-M3), AN386 (M4 with FPU) or AN500 (M7 with FPU). */
#ifndef PLACE_H
#define PLACE_H

#define UART 0x40004000u
#define WATCHDOG 0x40008000u
#define WATCHDOG_HZ 25000000u
#define FPGAIO 0x40028000u
#define BOARD_TICKS_PER_MS 25000u

#endif
