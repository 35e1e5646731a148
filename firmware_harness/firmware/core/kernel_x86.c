/* FULLY_CONNECTED on x86-64, sixteen outputs at a time.
 *
 * Weights lie in blocks of 16 outputs: for each 4 inputs 64 bytes, 4 for each output. Inputs are
 * taken as code + 128, which is at least 0 as VNNI wants it; the bias knows. Widths are padded
 * with zeros.
 */
#include <immintrin.h>
#include <string.h>

#include "fixed.h"
#include "parts.h"

enum { LANES = 16, GROUP = 4, WIDEST = 8192 };

const uint32_t gruard_layout = GRUARD_LANES;

uint32_t gruard_weight_bytes(uint32_t inputs, uint32_t outputs) {
    return (inputs + GROUP - 1) / GROUP * GROUP * ((outputs + LANES - 1) / LANES * LANES);
}

static inline __attribute__((always_inline)) void narrow_block(
    const int32_t *restrict sums, const gruard_integer *restrict bias, uint32_t count,
    const gruard_operator *o, int8_t *restrict output) {
    const int32_t multiplier = o->multiplier, shift = o->shift, zero = o->out_zero;
    const int32_t lowest = o->lowest;
    if (count >= LANES) {
        for (uint32_t i = 0; i < LANES; i++) /* a fixed number, at the width of the unit */
            output[i] = gruard_narrow(
                gruard_scale_product(sums[i] + bias[i], multiplier, shift) + zero, lowest);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        output[i] = gruard_narrow(
            gruard_scale_product(sums[i] + bias[i], multiplier, shift) + zero, lowest);
}

static inline int32_t group_at(const uint8_t *input, uint32_t group) {
    int32_t four;
    memcpy(&four, input + group * GROUP, GROUP);
    return four;
}

__attribute__((target("arch=x86-64-v4,avx512vnni"))) static void with_vnni(
    const uint8_t *input, uint32_t groups, const int8_t *weights, const gruard_integer *bias,
    int8_t *output, const gruard_operator *o) {
    for (uint32_t row = 0; row < o->count; row += LANES) {
        int32_t sums[LANES] __attribute__((aligned(64)));
        __m512i even = _mm512_setzero_si512(), odd = even; /* two chains: one would wait */
        for (uint32_t g = 0; g < groups; g++, weights += LANES * GROUP) {
            const __m512i four = _mm512_set1_epi32(group_at(input, g));
            const __m512i block = _mm512_loadu_si512(weights);
            if (g % 2) odd = _mm512_dpbusd_epi32(odd, four, block);
            else even = _mm512_dpbusd_epi32(even, four, block);
        }
        _mm512_store_si512(sums, _mm512_add_epi32(even, odd));
        narrow_block(sums, bias + row, o->count - row, o, output + row);
    }
}

__attribute__((target("arch=x86-64-v3"))) static void with_avx2(
    const uint8_t *input, uint32_t groups, const int8_t *weights, const gruard_integer *bias,
    int8_t *output, const gruard_operator *o) {
    for (uint32_t row = 0; row < o->count; row += LANES) {
        int32_t sums[LANES] __attribute__((aligned(32)));
        __m256i total[4];
        for (uint32_t q = 0; q < 4; q++) total[q] = _mm256_setzero_si256();
        for (uint32_t g = 0; g < groups; g++, weights += LANES * GROUP) {
            const __m256i four = _mm256_cvtepu8_epi16(_mm_set1_epi32(group_at(input, g)));
            for (uint32_t q = 0; q < 4; q++) { /* four outputs each */
                const __m128i quarter = _mm_loadu_si128((const __m128i *)weights + q);
                const __m256i pairs = _mm256_madd_epi16(four, _mm256_cvtepi8_epi16(quarter));
                total[q] = _mm256_add_epi32(total[q], pairs);
            }
        }
        for (uint32_t half = 0; half < 2; half++) {
            const __m256i both = _mm256_hadd_epi32(total[2 * half], total[2 * half + 1]);
            _mm256_store_si256((__m256i *)sums + half, _mm256_permute4x64_epi64(both, 0xD8));
        }
        narrow_block(sums, bias + row, o->count - row, o, output + row);
    }
}

static void with_sse2(const uint8_t *input, uint32_t groups, const int8_t *weights,
                      const gruard_integer *bias, int8_t *output, const gruard_operator *o) {
    for (uint32_t row = 0; row < o->count; row += LANES) {
        int32_t sums[LANES] = {0};
        for (uint32_t g = 0; g < groups; g++, weights += LANES * GROUP)
            for (uint32_t i = 0; i < LANES; i++)
                for (uint32_t k = 0; k < GROUP; k++)
                    sums[i] += input[g * GROUP + k] * weights[i * GROUP + k];
        narrow_block(sums, bias + row, o->count - row, o, output + row);
    }
}

typedef void (*kernel)(const uint8_t *, uint32_t, const int8_t *, const gruard_integer *, int8_t *,
                       const gruard_operator *);

static kernel fastest(void) {
    if (__builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512vnni"))
        return with_vnni;
    return __builtin_cpu_supports("x86-64-v3") ? with_avx2 : with_sse2;
}

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    static kernel chosen; /* every thread that finds it unset would choose the same */
    if (!chosen) chosen = fastest();
    uint8_t padded[WIDEST + GROUP];
    const uint32_t groups = (o->inputs + GROUP - 1) / GROUP;
    for (uint32_t i = 0; i < o->inputs; i++) padded[i] = (uint8_t)(input[i] + 128);
    memset(padded + o->inputs, 0, groups * GROUP - o->inputs);
    chosen(padded, groups, weights, bias, output, o);
}
