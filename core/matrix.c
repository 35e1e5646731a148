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
