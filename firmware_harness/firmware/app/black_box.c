/* The box is in a section that the start-up code does not clear. */
#include "black_box.h"

#include "protocol.h"

#define MAGIC 0x47525542u
#define MAGIC_TOO 0xB8ADAABDu

__attribute__((section(".noinit"))) volatile black_box box;

static void note(uint32_t cause, uint32_t pc, uint32_t lr, uint32_t fault_status) {
    if (box.cause) return; /* report the first cause */
    box.cause = cause;
    box.pc = pc;
    box.lr = lr;
    box.fault_status = fault_status;
}

int box_open(void) {
    const int afresh = box.magic != MAGIC || box.magic_too != MAGIC_TOO;
    if (afresh) {
        for (uint32_t i = 0; i < sizeof box / 4; i++) ((volatile uint32_t *)&box)[i] = 0;
        box_set_next(0);
        box.magic = MAGIC;
        box.magic_too = MAGIC_TOO;
        return 1;
    }
    note(CAUSE_SILENT, 0, 0, 0);
    box.resets++;
    return 0;
}

void box_set_next(uint32_t next) {
    box.next = next;
    box.next_too = ~next;
}

void box_heal_next(uint32_t asked) {
    if (box.next != ~box.next_too) box_set_next(asked);
}

void box_note_and_reset(uint32_t cause) {
    note(cause, 0, 0, 0);
    app_expire();
    board_reset();
}

void app_note(board_trouble trouble, uint32_t pc, uint32_t lr, uint32_t fault_status) {
    static const uint8_t causes[] = {CAUSE_HANG, CAUSE_FAULT, CAUSE_STACK};
    note(causes[trouble], pc, lr, fault_status);
    app_expire();
}

void app_expire(void) { box.ended_at = board_ticks(); }
