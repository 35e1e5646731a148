/* From reset to main() on a Cortex-M, and from a fault to the application's note.
 *
 * main() runs on its own stack (PSP) with a guard below it. Handlers run on another stack (MSP), so
 * that they can report an overflow. Only the program is executable: a jump to anywhere else is a
 * fault. A Cortex-M0 has neither guard nor causes of faults.
 */
#include "board.h"
#include "sections.h"

#define WORD(address) (*(volatile uint32_t *)(address))
#define CPACR WORD(0xE000ED88u)
#define CFSR WORD(0xE000ED28u)
#define HFSR WORD(0xE000ED2Cu)
#define MMFAR WORD(0xE000ED34u)
#define AIRCR WORD(0xE000ED0Cu)
#define FPDSCR WORD(0xE000EF3Cu)
#define MPU_CTRL WORD(0xE000ED94u)
#define MPU_RNR WORD(0xE000ED98u)
#define MPU_RBAR WORD(0xE000ED9Cu)
#define MPU_RASR WORD(0xE000EDA0u)
#define MPU_RLAR WORD(0xE000EDA0u)
#define MPU_MAIR0 WORD(0xE000EDC0u)

/* Address ranges of the architecture. */
#define DATA 0x20000000u
#define PERIPHERALS 0x40000000u
#define EXTERNAL 0x60000000u
#define DEVICES 0xA0000000u

/* AHP, DN, FZ and rounding mode: IEEE 754 with denormals, to nearest even. */
#define FLOAT_MODES 0x07C00000u
/* Stacking or an access hit the guard; the limit of the stack was passed. */
enum { MEMORY_FAULTS = 0xFFu, STACKING_FAULT = 1u << 4, ADDRESS_VALID = 1u << 7,
       STACK_LIMIT_PASSED = 1u << 20 };

extern uint32_t board_handler_stack_top[];

__attribute__((section(".checksum"), used)) volatile const uint32_t board_code_checksum = 0;

static void prepare_floats(void) {
#ifdef __ARM_FP
    CPACR |= 0xFu << 20;
    __asm volatile("dsb\n isb" ::: "memory");
    FPDSCR &= ~FLOAT_MODES;
    uint32_t modes;
    __asm volatile("vmrs %0, fpscr" : "=r"(modes));
    __asm volatile("vmsr fpscr, %0" ::"r"(modes & ~FLOAT_MODES));
#endif
}

#if __ARM_ARCH >= 8
/* Regions must not overlap and are multiples of 32 bytes; other addresses are as without an MPU. */
static void never_executed(uint32_t number, uint32_t begin, uint32_t end) {
    MPU_RNR = number;
    MPU_RBAR = begin | (1u << 1) | 1u; /* read and written, not executed */
    MPU_RLAR = ((end - 1) & ~31u) | 1u;
}

static void guard_memory(void) {
    const uint32_t program_end = ((uint32_t)board_code_end + 31u) & ~31u;
    __asm volatile("msr psplim, %0" ::"r"(board_stack_low));
    MPU_MAIR0 = 0x44; /* normal memory, not cached */
    never_executed(0, 0, (uint32_t)board_code_start);
    never_executed(1, program_end, DATA);
    never_executed(2, DATA, PERIPHERALS);
    never_executed(3, EXTERNAL, DEVICES);
    MPU_CTRL = 5;
    __asm volatile("dsb\n isb" ::: "memory");
}
#elif __ARM_ARCH == 7
/* Of overlapping regions the highest number wins; other addresses are as without an MPU. A region
 * has 2^size_log2 bytes, and begins at a multiple of its size. */
static void region(uint32_t number, uint32_t begin, uint32_t size_log2, uint32_t rights) {
    MPU_RNR = number;
    MPU_RBAR = begin;
    MPU_RASR = rights | ((size_log2 - 1u) << 1) | 1u;
}

static void guard_memory(void) {
    const uint32_t program = (uint32_t)board_code_end - (uint32_t)board_code_start;
    uint32_t program_log2 = 5;
    while (1u << program_log2 < program) program_log2++;
    enum { NEVER_EXECUTED = 1 << 28, USED = 3 << 24 | 3 << 16, UNTOUCHED = 0 };
    region(0, 0, 29, USED | NEVER_EXECUTED);
    region(1, (uint32_t)board_code_start, program_log2, USED);
    region(2, DATA, 29, USED | NEVER_EXECUTED);
    region(3, EXTERNAL, 30, USED | NEVER_EXECUTED);
    region(7, (uint32_t)board_guard, 10, UNTOUCHED | NEVER_EXECUTED);
    MPU_CTRL = 5;
    __asm volatile("dsb\n isb" ::: "memory");
}
#else
static void guard_memory(void) {} /* no MPU */
#endif

__attribute__((used)) static void begin(void) {
    prepare_floats();
    fill_sections();
    guard_memory();
    main();
    board_reset();
}

/* Switch to the thread stack. */
__attribute__((naked, used)) void board_enter(void) {
    __asm volatile("ldr r0, =board_stack_top\n"
                   "msr psp, r0\n"
                   "movs r0, #2\n"
                   "msr control, r0\n"
                   "isb\n"
                   "b begin\n");
}

void board_reset(void) {
    __asm volatile("dsb" ::: "memory");
    AIRCR = 0x05FA0004u;
    for (;;);
}

/* frame: what the processor stacked, r0-r3, r12, lr, pc, psr. */
__attribute__((used)) static void watchdog_expired(const uint32_t *frame) {
    app_note(BOARD_WATCHDOG, frame[6], frame[5], 0);
    for (;;) app_expire();
}

#if __ARM_ARCH == 6
__attribute__((used)) static void fault(const uint32_t *frame) {
    app_note(BOARD_FAULT, frame[6], frame[5], 0);
    board_reset();
}
#else
__attribute__((used)) static void fault(const uint32_t *frame) {
    const uint32_t status = CFSR;
    const uint32_t in_guard = MMFAR - (uint32_t)board_guard;
    const int on_guard = (status & MEMORY_FAULTS) &&
                         ((status & STACKING_FAULT) ||
                          ((status & ADDRESS_VALID) &&
                           in_guard < (uint32_t)board_stack_low - (uint32_t)board_guard));
    app_note(on_guard || (status & STACK_LIMIT_PASSED) ? BOARD_STACK : BOARD_FAULT, frame[6],
             frame[5], status | (HFSR & 0x80000000u));
    board_reset();
}
#endif

/* Call `handler` with the interrupted stack, by instructions that every Cortex-M has. */
#define WITH_FRAME(handler)                                                                        \
    __asm volatile("movs r0, #4\n"                                                                 \
                   "mov r1, lr\n"                                                                  \
                   "tst r0, r1\n"                                                                  \
                   "mrs r0, psp\n"                                                                 \
                   "bne 1f\n"                                                                      \
                   "mrs r0, msp\n"                                                                 \
                   "1: ldr r1, =" #handler "\n"                                                    \
                   "bx r1\n")

__attribute__((naked, used)) static void on_watchdog(void) { WITH_FRAME(watchdog_expired); }

__attribute__((naked, used)) static void on_fault(void) { WITH_FRAME(fault); }

__attribute__((section(".vectors"), used)) static void (*const vectors[16 + 96])(void) = {
    (void (*)(void))board_handler_stack_top, board_enter, on_watchdog, [3 ... 111] = on_fault,
};
