/* Count the instructions of a step, and of each of its parts and operators.
 *
 * Runs under -icount, where SysTick's time follows the instructions. rows.bin: float32
 * [rows][channels]. costs.bin, uint32: ticks between two reads of the clock; `COST_PARTS`; for each
 * row its alarm and the ticks of the step and of its parts; the ticks of the operators of the last
 * step's graph; the largest stack use of a step and the size of the detector's state, in bytes.
 */
#include "board.h"
#include "cost.h"
#include "gruard_detector.h"
#include "parts.h"
#include "semihosting.h"

#define SYSTICK_CONTROL (*(volatile uint32_t *)0xE000E010u)
#define SYSTICK_RELOAD (*(volatile uint32_t *)0xE000E014u)
#define SYSTICK_VALUE (*(volatile uint32_t *)0xE000E018u)
#define PAINT 0xA5A5A5A5u

extern const uint32_t gruard_blob[], gruard_blob_size;

static gruard_model model;
static gruard_detector detector;
static uint32_t marks[COST_PARTS], before;

static void cost_tell(uint32_t handle, uint32_t number) {
    host_write(handle, &number, sizeof number);
}

static uint32_t since(uint32_t then) { return (then - SYSTICK_VALUE) & 0xFFFFFFu; }

void cost_mark(uint32_t part) {
    marks[part] += since(before);
    before = SYSTICK_VALUE;
}

static void cost_paint_stack(void) {
    uint32_t *top = __builtin_frame_address(0);
    for (uint32_t *word = board_stack_low; word < top - 16; word++) *word = PAINT;
}

static uint32_t cost_stack_used(void) {
    const uint32_t *word = board_stack_low;
    while (*word == PAINT) word++;
    return (uint32_t)((const uint8_t *)__builtin_frame_address(0) - (const uint8_t *)word);
}

static void cost_operators(uint32_t out) {
    gruard_model one = model;
    one.operators = 1;
    for (uint32_t i = 0; i < model.operators; i++) {
        one.program = model.program + i;
        const uint32_t then = SYSTICK_VALUE;
        gruard_run_graph(&one, detector.arena);
        cost_tell(out, since(then));
    }
}

int main(void) {
    const uint32_t in = host_open("rows.bin", HOST_TO_READ);
    const uint32_t out = host_open("costs.bin", HOST_TO_WRITE);
    if (gruard_open(&model, gruard_blob, gruard_blob_size)) host_leave(1);
    const size_t size = gruard_memory(&model);
    uint8_t *memory = (uint8_t *)board_free_start;
    if (size + model.channels * 4 > (size_t)((uint8_t *)board_free_end - memory)) host_leave(2);
    if (gruard_start(&detector, &model, memory, size)) host_leave(3);
    float *row = (float *)(memory + size);
    SYSTICK_RELOAD = 0xFFFFFFu;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 5; /* the processor's clock, no interrupt */
    before = SYSTICK_VALUE;
    cost_tell(out, since(before));
    cost_tell(out, COST_PARTS);
    uint32_t stack = 0;
    while (host_read(in, row, model.channels * 4) == model.channels * 4) {
        gruard_record record;
        for (uint32_t part = 0; part < COST_PARTS; part++) marks[part] = 0;
        cost_paint_stack();
        const uint32_t then = before = SYSTICK_VALUE;
        gruard_step(&detector, row, &record);
        const uint32_t step = since(then);
        cost_tell(out, record.alarm);
        cost_tell(out, step);
        const uint32_t used = cost_stack_used();
        stack = used > stack ? used : stack;
        for (uint32_t part = 0; part < COST_PARTS; part++) cost_tell(out, marks[part]);
    }
    cost_operators(out);
    cost_tell(out, stack);
    cost_tell(out, size);
    host_leave(0);
}

void app_note(board_trouble trouble, uint32_t pc, uint32_t lr, uint32_t status) {
    (void)trouble, (void)pc, (void)lr, (void)status;
    host_leave(62);
}

void app_expire(void) {}
