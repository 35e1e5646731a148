/* How many int8 multiply-accumulates this processor can do in a second, on one core.
 *
 * Nothing but the multiplications: 12 chains of sums in registers, no loads, no stores. Prints the
 * number, in multiply-accumulates a second.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#if defined(__x86_64__)
#define IN_REGISTER(sum) "+v"(sum)
#elif defined(__aarch64__)
#define IN_REGISTER(sum) "+w"(sum)
#else
#define IN_REGISTER(sum) "+r"(sum)
#endif

enum { CHAINS = 12, ROUNDS = 20000000 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#define EACH 64
#define WIDE __m512i
#define SET(n) _mm512_set1_epi32(n)
#define STEP(sum) sum = _mm512_dpbusd_epi32(sum, x, w)
#elif defined(__AVX2__)
#include <immintrin.h>
#define EACH 16
#define WIDE __m256i
#define SET(n) _mm256_set1_epi32(n)
#define STEP(sum) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x, w))
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define EACH 16
#define WIDE int32x4_t
#define SET(n) vdupq_n_s32(n)
#define STEP(sum) sum = vdotq_s32(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w))
#else
#define EACH 1
#define WIDE int32_t
#define SET(n) (n)
#define STEP(sum) sum += (int8_t)x * (int8_t)w
#endif

int main(void) {
    WIDE sums[CHAINS], x = SET(0x01020304), w = SET(0x04030201);
    for (int c = 0; c < CHAINS; c++) sums[c] = SET(c);
    const double began = now();
    for (long r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) {
            STEP(sums[c]);
            __asm__ volatile("" : IN_REGISTER(sums[c])); /* every one counts */
        }
    }
    const double seconds = now() - began;
    volatile WIDE kept;
    for (int c = 0; c < CHAINS; c++) kept = sums[c];
    (void)kept;
    printf("%.0f\n", (double)ROUNDS * CHAINS * EACH / seconds);
    return 0;
}
