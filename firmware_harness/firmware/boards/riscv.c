/* From reset to main() on a RISC-V processor in machine mode, and from a trap to the application's
 * note.
 */
#include "board.h"
#include "sections.h"

/* Of every processor with machine mode, but not named by the C library's builds. */
#define WITH_CSR ".option arch, +zicsr\n"

static void prepare_floats(void) {
#ifdef __riscv_flen
    const uint32_t on = 1u << 13; /* mstatus.FS: initial */
    __asm volatile("csrs mstatus, %0" ::"r"(on));
    __asm volatile("csrw fcsr, zero"); /* rounding to nearest even */
#endif
}

__attribute__((used, noreturn)) static void begin(void) {
    prepare_floats();
    fill_sections();
    main();
    for (;;);
}

__attribute__((used, noreturn)) static void trap(uint32_t pc, uint32_t lr, uint32_t cause) {
    app_note(BOARD_FAULT, pc, lr, cause);
    for (;;) app_expire();
}

/* mtvec holds multiples of 4. */
__attribute__((naked, used, aligned(4))) static void on_trap(void) {
    __asm volatile(WITH_CSR "csrr a0, mepc\n mv a1, ra\n csrr a2, mcause\n j trap\n");
}

__attribute__((naked, used, section(".vectors"))) void board_enter(void) {
    __asm volatile(WITH_CSR "la sp, board_stack_top\n"
                   "la t0, on_trap\n"
                   "csrw mtvec, t0\n"
                   "j begin\n");
}
