/* The graph's part of the core alone on an emulated board, for tests.
 *
 * cases.bin, uint32: for each case the sizes in bytes of program, integers, constants and arena (all
 * multiples of 16) and the number of arenas, then these. results.bin: each arena afterwards.
 */
#include "board.h"
#include "parts.h"
#include "semihosting.h"

typedef struct {
    uint32_t program, integers, constants, arena, rounds;
} sizes;

static void *taken(uint32_t in, uint8_t **memory, uint32_t size) {
    void *const part = *memory;
    if (size > (size_t)((uint8_t *)board_free_end - *memory)) host_leave(2);
    if (host_read(in, part, size) != size) host_leave(3);
    *memory += size;
    return part;
}

int main(void) {
    const uint32_t in = host_open("cases.bin", HOST_TO_READ);
    const uint32_t out = host_open("results.bin", HOST_TO_WRITE);
    sizes each;
    while (host_read(in, &each, sizeof each) == sizeof each) {
        uint8_t *memory = (uint8_t *)(((uintptr_t)board_free_start + 15) / 16 * 16);
        gruard_model model = {0};
        model.program = taken(in, &memory, each.program);
        model.operators = each.program / sizeof(gruard_operator);
        model.integers = taken(in, &memory, each.integers);
        model.bytes = taken(in, &memory, each.constants);
        uint8_t *const arena = memory;
        for (uint32_t round = 0; round < each.rounds; round++, memory = arena) {
            taken(in, &memory, each.arena);
            gruard_run_graph(&model, (int8_t *)arena);
            host_write(out, arena, each.arena);
        }
    }
    host_leave(0);
}

void app_note(board_trouble trouble, uint32_t pc, uint32_t lr, uint32_t status) {
    (void)trouble, (void)pc, (void)lr, (void)status;
    host_leave(62);
}

void app_expire(void) {}
