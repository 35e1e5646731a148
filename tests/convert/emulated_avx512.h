/* The instructions of kernel_x86.c that few processors have, as loops, so that any x86-64 with AVX2
 * can test what the kernel computes with them. To be included before the kernel.
 */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* No function is compiled for a processor that this machine may not be; the file is for AVX2. */
#define target(...)

typedef union { int8_t b[64]; uint8_t u[64]; int32_t d[16]; int64_t q[8]; } emulated;
#define __m512i emulated

#define EACH(number) for (int i = 0; i < (number); i++)

static inline emulated _emulated(const void *data) {
    emulated e;
    memcpy(&e, data, sizeof e);
    return e;
}

static inline emulated _set_d(int32_t value) {
    emulated e;
    EACH(16) e.d[i] = value;
    return e;
}

static inline emulated _set_q(int64_t value) {
    emulated e;
    EACH(8) e.q[i] = value;
    return e;
}

static inline int32_t _dpbusd(int32_t sum, const uint8_t *u, const int8_t *s) {
    EACH(4) sum = (int32_t)((uint32_t)sum + (uint32_t)(u[i] * s[i]));
    return sum;
}

static inline emulated _dpbusd512(emulated sum, emulated u, emulated s) {
    EACH(16) sum.d[i] = _dpbusd(sum.d[i], u.u + 4 * i, s.b + 4 * i);
    return sum;
}

static inline __m256i _dpbusd256(__m256i sum, __m256i u, __m256i s) {
    int32_t d[8];
    uint8_t a[32];
    int8_t b[32];
    memcpy(d, &sum, 32), memcpy(a, &u, 32), memcpy(b, &s, 32);
    EACH(8) d[i] = _dpbusd(d[i], a + 4 * i, b + 4 * i);
    memcpy(&sum, d, 32);
    return sum;
}

static inline emulated _add_d(emulated a, emulated b, int sign) {
    EACH(16) a.d[i] = (int32_t)((uint32_t)a.d[i] + (uint32_t)(sign * (int64_t)b.d[i]));
    return a;
}

static inline emulated _add_q(emulated a, emulated b) {
    EACH(8) a.q[i] = (int64_t)((uint64_t)a.q[i] + (uint64_t)b.q[i]);
    return a;
}

static inline emulated _mul_q(emulated a, emulated b) { /* of the even words */
    EACH(8) a.q[i] = (int64_t)a.d[2 * i] * b.d[2 * i];
    return a;
}

static inline emulated _mul_d(emulated a, emulated b) {
    EACH(16) a.d[i] = (int32_t)((uint32_t)a.d[i] * (uint32_t)b.d[i]);
    return a;
}

static inline emulated _shift_q(emulated a, int left) {
    EACH(8) a.q[i] = (int64_t)(left > 0 ? (uint64_t)a.q[i] << left : (uint64_t)a.q[i] >> -left);
    return a;
}

static inline emulated _right_d(emulated a, int shift) {
    EACH(16) a.d[i] >>= shift;
    return a;
}

static inline emulated _left_d(emulated a, int shift) {
    EACH(16) a.d[i] = (int32_t)((uint32_t)a.d[i] << shift);
    return a;
}

static inline emulated _blend_d(uint32_t mask, emulated a, emulated b) {
    EACH(16) a.d[i] = mask >> i & 1 ? b.d[i] : a.d[i];
    return a;
}

static inline emulated _blend_b(uint64_t mask, emulated a, emulated b) {
    EACH(64) a.b[i] = mask >> i & 1 ? b.b[i] : a.b[i];
    return a;
}

static inline emulated _largest(emulated a, emulated b) {
    EACH(16) a.d[i] = a.d[i] > b.d[i] ? a.d[i] : b.d[i];
    return a;
}

/* Loads and stores of `size` bytes an element touch only what the mask names. */
static inline emulated _load(uint64_t mask, const void *data, int count, int size) {
    emulated e = _set_d(0);
    EACH(count) if (mask >> i & 1) memcpy(e.b + i * size, (const int8_t *)data + i * size, size);
    return e;
}

static inline void _store(void *data, uint64_t mask, const void *from, int count) {
    EACH(count) if (mask >> i & 1) memcpy((int8_t *)data + i, (const int8_t *)from + i, 1);
}

static inline __m128i _load16(uint32_t mask, const void *data) {
    const emulated e = _load(mask, data, 16, 1);
    return _mm_loadu_si128((const __m128i *)&e);
}

static inline emulated _widened(__m128i codes) {
    int8_t b[16];
    emulated e;
    memcpy(b, &codes, 16);
    EACH(16) e.d[i] = b[i];
    return e;
}

static inline __m128i _narrowed(emulated a) {
    int8_t b[16];
    EACH(16) b[i] = (int8_t)(a.d[i] < -128 ? -128 : a.d[i] > 127 ? 127 : a.d[i]);
    return _mm_loadu_si128((const __m128i *)b);
}

static inline emulated _permuted(emulated a, emulated at, emulated b) {
    emulated e;
    EACH(64) e.b[i] = at.u[i] & 64 ? b.b[at.u[i] & 63] : a.b[at.u[i] & 63];
    return e;
}

static inline uint64_t _signs(emulated a) {
    uint64_t mask = 0;
    EACH(64) mask |= (uint64_t)(a.b[i] < 0) << i;
    return mask;
}

#define _mm512_setzero_si512() _set_d(0)
#define _mm512_set1_epi32 _set_d
#define _mm512_set1_epi64 _set_q
#define _mm512_loadu_si512(at) _emulated(at)
#define _mm512_dpbusd_epi32 _dpbusd512
#define _mm256_dpbusd_avx_epi32 _dpbusd256
#define _mm512_add_epi32(a, b) _add_d(a, b, 1)
#define _mm512_sub_epi32(a, b) _add_d(a, b, -1)
#define _mm512_add_epi64 _add_q
#define _mm512_mul_epi32 _mul_q
#define _mm512_mullo_epi32 _mul_d
#define _mm512_srli_epi64(a, shift) _shift_q(a, -(shift))
#define _mm512_slli_epi64(a, shift) _shift_q(a, shift)
#define _mm512_srai_epi32(a, shift) _right_d(a, shift)
#define _mm512_sra_epi32(a, shift) _right_d(a, _mm_cvtsi128_si32(shift))
#define _mm512_sll_epi32(a, shift) _left_d(a, _mm_cvtsi128_si32(shift))
#define _mm512_mask_blend_epi32 _blend_d
#define _mm512_mask_blend_epi8 _blend_b
#define _mm512_max_epi32 _largest
#define _mm512_cvtepi8_epi32 _widened
#define _mm512_cvtsepi32_epi8 _narrowed
#define _mm_maskz_loadu_epi8(mask, at) _load16(mask, at)
#define _mm512_maskz_loadu_epi8(mask, at) _load(mask, at, 64, 1)
#define _mm512_maskz_loadu_epi32(mask, at) _load(mask, at, 16, 4)
#define _mm_mask_storeu_epi8(at, mask, value)          \
    do {                                               \
        const __m128i stored = value;                  \
        _store(at, mask, &stored, 16);                 \
    } while (0)
#define _mm512_mask_storeu_epi8(at, mask, value)       \
    do {                                               \
        const emulated stored = value;                 \
        _store(at, mask, &stored, 64);                 \
    } while (0)
#define _mm512_permutex2var_epi8 _permuted
#define _mm512_movepi8_mask _signs
