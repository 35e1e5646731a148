/* The graph's part of the core alone, for tests: one program, run on a kernel of one's choice.
 *
 * With AS_PROGRAM it is a program of its own: stdin has the numbers of operators, integers, bytes,
 * cases and of bytes in an arena, each a uint32_t, then all of these; stdout gets the arenas.
 */
#include <stdio.h>
#include <stdlib.h>

#include "parts.h"

#ifdef WITH_X86
#ifdef EMULATED_AVX512
#include "emulated_avx512.h"
#endif
#include "kernel_x86.c"

/* Choose a level by its number from SSE2 on; returns whether this processor has it. */
int choose(int number) {
    level = UNSET;
    const int wanted = SSE2 + number, best = best_level();
#ifdef EMULATED_AVX512
    const int possible = best >= AVX2;
#else
    const int possible = wanted == AVX_VNNI_ONLY ? has_avx_vnni() : wanted <= best;
#endif
    level = possible ? wanted : SSE2;
    return possible;
}
#elif defined(WITH_NEON)
#include "kernel_neon.c"
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

#ifdef AS_PROGRAM
static void *taken(size_t count, size_t size) {
    void *data = malloc(count * size + 1);
    if (!data || fread(data, size, count, stdin) != count) exit(2);
    return data;
}

int main(void) {
    enum { OPERATORS, INTEGERS, BYTES, CASES, ARENA, SIZES };
    const uint32_t *sizes = taken(SIZES, sizeof *sizes);
    const gruard_operator *program = taken(sizes[OPERATORS], sizeof *program);
    const int32_t *integers = taken(sizes[INTEGERS], sizeof *integers);
    const int8_t *bytes = taken(sizes[BYTES], 1);
    for (uint32_t i = 0; i < sizes[CASES]; i++) {
        int8_t *arena = taken(sizes[ARENA], 1);
        run_program(program, sizes[OPERATORS], integers, bytes, arena);
        if (fwrite(arena, 1, sizes[ARENA], stdout) != sizes[ARENA]) return 2;
        free(arena);
    }
    return 0;
}
#endif
