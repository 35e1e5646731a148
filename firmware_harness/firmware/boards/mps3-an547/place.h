/* Arm MPS3 with FPGA image AN547: Cortex-M55, secure side. */
#define UART 0x59303000u
#define WATCHDOG 0x5802e000u
#define WATCHDOG_HZ 32768u
#define FPGAIO 0x59302000u
