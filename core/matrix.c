/* Matrix times vector in the fixed order of edge_runtime.numerics.ordered_matvec.
 *
 * Each addition of an ordered sum waits for the one before, so several rows are summed at a time;
 * for that the matrices of a blob lie column after column.
 */
#include "parts.h"

#ifdef GRUARD_HOST
enum { SIDE_BY_SIDE = 16 };

static inline void several(const gruard_float *column, uint32_t rows, uint32_t columns,
                           const float *vector, float *result) {
    float sums[SIDE_BY_SIDE];
    for (uint32_t k = 0; k < SIDE_BY_SIDE; k++) sums[k] = column[k] * vector[0];
    for (uint32_t i = 1; i < columns; i++) {
        column += rows;
        for (uint32_t k = 0; k < SIDE_BY_SIDE; k++) sums[k] += column[k] * vector[i];
    }
    for (uint32_t k = 0; k < SIDE_BY_SIDE; k++) result[k] = sums[k];
}
#elif defined(__thumb2__) && defined(__ARM_FP) && __ARM_FP & 4
enum { SIDE_BY_SIDE = 8 };

/* Eight rows: their sums in s0 to s7, a column in s8 to s15. bytes: from column to column. */
void gruard_eight_rows(const gruard_float *column, uint32_t bytes, uint32_t columns,
                       const float *vector, float *result);

#define EIGHT(operation)                                                              \
    operation(0, 8) operation(1, 9) operation(2, 10) operation(3, 11)                  \
    operation(4, 12) operation(5, 13) operation(6, 14) operation(7, 15)
#define FIRST(sum, factor) "vmul.f32 s" #sum ", s" #factor ", s16\n"
#define NEXT(sum, factor) "vmla.f32 s" #sum ", s" #factor ", s16\n" /* rounds the product */

__asm(".syntax unified\n.section .text.gruard_eight_rows, \"ax\"\n.align 2\n"
      ".global gruard_eight_rows\n.thumb\n.thumb_func\n"
      ".type gruard_eight_rows, %function\ngruard_eight_rows:\n"
      "ldr r12, [sp]\n"
      "vpush {s16}\n"
      "vldmia r3!, {s16}\n"
      "vldmia r0, {s8-s15}\n" EIGHT(FIRST)
      "b .Lnext\n"
      "1:\n"
      "add r0, r0, r1\n"
      "vldmia r3!, {s16}\n"
      "vldmia r0, {s8-s15}\n" EIGHT(NEXT)
      ".Lnext:\n"
      "subs r2, r2, #1\n"
      "bne 1b\n"
      "vstmia r12, {s0-s7}\n"
      "vpop {s16}\n"
      "bx lr\n");

static inline void several(const gruard_float *column, uint32_t rows, uint32_t columns,
                           const float *vector, float *result) {
    gruard_eight_rows(column, rows * sizeof(float), columns, vector, result);
}
#else
enum { SIDE_BY_SIDE = 4 };

static void several(const gruard_float *column, uint32_t rows, uint32_t columns,
                    const float *vector, float *result) {
    float a = column[0] * *vector, b = column[1] * *vector; /* in registers, by name */
    float c = column[2] * *vector, d = column[3] * *vector;
    for (const float *const end = vector++ + columns; vector < end; vector++) {
        column += rows;
        a += column[0] * *vector, b += column[1] * *vector;
        c += column[2] * *vector, d += column[3] * *vector;
    }
    result[0] = a, result[1] = b, result[2] = c, result[3] = d;
}
#endif

GRUARD_WIDE void gruard_matvec(const gruard_float *matrix, uint32_t rows, uint32_t columns,
                               const float *vector, float *result) {
    uint32_t row = 0;
    for (; row + SIDE_BY_SIDE <= rows; row += SIDE_BY_SIDE)
        several(matrix + row, rows, columns, vector, result + row);
    for (; row < rows; row++) {
        float sum = matrix[row] * vector[0];
        for (uint32_t i = 1; i < columns; i++) sum += matrix[i * rows + row] * vector[i];
        result[row] = sum;
    }
}
