/* The graph's part of the core alone, for tests: one program, run on a kernel of one's choice. */
#include "parts.h"

#ifdef WITH_X86
#include "kernel_x86.c"

/* 0 SSE2, 1 AVX2, 2 VNNI; whether this processor has it. */
int choose(int number) {
    level = UNSET;
    const int wanted = SSE2 + number, possible = wanted <= best_level();
    level = possible ? wanted : SSE2;
    return possible;
}
#else
#include "kernel_portable.c"
#endif

void run_program(const gruard_operator *program, uint32_t operators, const int32_t *integers,
                 const int8_t *bytes, int8_t *arena);

void run_program(const gruard_operator *program, uint32_t operators, const int32_t *integers,
                 const int8_t *bytes, int8_t *arena) {
    gruard_model model = {0};
    model.program = program;
    model.operators = operators;
    model.integers = integers;
    model.bytes = bytes;
    gruard_run_graph(&model, arena);
}
