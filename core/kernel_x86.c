/* The arithmetic on x86-64, sixteen values at a time.
 *
 * Weights lie in blocks of 16 outputs: for each 4 inputs 64 bytes, 4 for each output. Inputs are
 * taken as code + 128, because VNNI needs unsigned ones; the bias compensates. Widths are padded
 * with zeros.
 */
#include <immintrin.h>
#include <string.h>

#include "fixed.h"
#include "parts.h"

enum { LANES = GRUARD_LANE_OUTPUTS, GROUP = GRUARD_LANE_INPUTS, WIDEST = GRUARD_WIDEST };
enum { BLOCK = LANES * GROUP, MOST_BLOCKS = 4, MOST_CHAINS = 4 };

#define ALWAYS static inline __attribute__((always_inline))
#if defined(__clang__)
#define KNOWS_AVX_VNNI (__clang_major__ >= 12)
#else
#define KNOWS_AVX_VNNI (__GNUC__ >= 11)
#endif

const uint32_t gruard_layout = GRUARD_LANES;

uint32_t gruard_weight_bytes(const gruard_operator *o) {
    return (o->inputs + GROUP - 1) / GROUP * GROUP * ((o->count + LANES - 1) / LANES * LANES);
}

uint32_t gruard_biases(uint32_t outputs) { return outputs; }

static inline int8_t finish(int32_t sum, int32_t bias, int32_t multiplier, int32_t shift,
                            int32_t zero, int32_t lowest) {
    const int32_t scaled = gruard_scale_product(gruard_plus(sum, bias), multiplier, shift);
    return gruard_narrow(gruard_plus(scaled, zero), lowest);
}

ALWAYS void narrow_block(
    const int32_t *restrict sums, const gruard_integer *restrict bias, uint32_t count,
    const gruard_operator *o, int8_t *restrict output) {
    const int32_t multiplier = o->multiplier, shift = o->shift, zero = o->out_zero;
    const int32_t lowest = o->lowest;
    if (count >= LANES) {
        for (uint32_t i = 0; i < LANES; i++) /* a fixed number, at the width of the unit */
            output[i] = finish(sums[i], bias[i], multiplier, shift, zero, lowest);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        output[i] = finish(sums[i], bias[i], multiplier, shift, zero, lowest);
}

#define VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

/* gruard_high of sixteen values: products of the even and of the odd lanes, 64 bits each. */
VNNI static inline __m512i high16(__m512i value, __m512i multiplier) {
    const __m512i half = _mm512_set1_epi64(1 << 30);
    const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(value, multiplier), half);
    const __m512i odd = _mm512_add_epi64(
        _mm512_mul_epi32(_mm512_srli_epi64(value, 32), multiplier), half);
    return _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 31), _mm512_slli_epi64(odd, 1));
}

/* gruard_halve_away of sixteen values. */
VNNI static inline __m512i halve16(__m512i value, int32_t shift) {
    if (!shift) return value;
    const __m512i half = _mm512_set1_epi32(1 << (shift - 1));
    const __m512i sign = _mm512_srai_epi32(value, 31);
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(value, sign), half);
    return _mm512_sra_epi32(sum, _mm_cvtsi32_si128(shift));
}

/* gruard_scale of sixteen values. */
VNNI static inline __m512i scale16(__m512i value, int32_t multiplier, int32_t shift) {
    const __m512i factor = _mm512_set1_epi32(multiplier);
    if (shift > 0) return high16(_mm512_sll_epi32(value, _mm_cvtsi32_si128(shift)), factor);
    return halve16(high16(value, factor), -shift);
}

/* gruard_scale_product of sixteen values, whose ties go upward. */
VNNI static inline __m512i product16(__m512i value, const gruard_operator *o) {
    if (o->shift >= 0) return scale16(value, o->multiplier, o->shift);
    const __m512i high = high16(value, _mm512_set1_epi32(o->multiplier));
    const __m512i half = _mm512_set1_epi32(1 << (-o->shift - 1));
    return _mm512_sra_epi32(_mm512_add_epi32(high, half), _mm_cvtsi32_si128(-o->shift));
}

VNNI static inline __m512i codes16(const int8_t *codes, __mmask16 lanes, int32_t zero) {
    const __m512i wide = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, codes));
    return _mm512_sub_epi32(wide, _mm512_set1_epi32(zero));
}

VNNI static inline void store16(int8_t *codes, __mmask16 lanes, __m512i values, int32_t zero,
                              int32_t lowest) {
    const __m512i whole = _mm512_add_epi32(values, _mm512_set1_epi32(zero));
    const __m512i kept = _mm512_max_epi32(whole, _mm512_set1_epi32(lowest));
    _mm_mask_storeu_epi8(codes, lanes, _mm512_cvtsepi32_epi8(kept));
}

VNNI static inline __mmask16 lanes_of(uint32_t left) {
    return (__mmask16)(left < LANES ? (1u << left) - 1u : 0xFFFFu);
}

static inline int32_t group_at(const uint8_t *input, uint32_t group) {
    int32_t four;
    memcpy(&four, input + group * GROUP, GROUP);
    return four;
}

#define FOR_AVX2 __attribute__((target("avx2")))

/* gruard_high of eight values: products of the even and of the odd lanes, 64 bits each. */
FOR_AVX2 ALWAYS __m256i high8(__m256i value, __m256i multiplier) {
    const __m256i half = _mm256_set1_epi64x(1 << 30);
    const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(value, multiplier), half);
    const __m256i odd = _mm256_add_epi64(
        _mm256_mul_epi32(_mm256_srli_epi64(value, 32), multiplier), half);
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 31), _mm256_slli_epi64(odd, 1), 0xAA);
}

/* gruard_scale of eight values; with `upward` gruard_scale_product, whose ties go upward. */
FOR_AVX2 ALWAYS __m256i scale8(__m256i value, int32_t multiplier, int32_t shift, int upward) {
    const __m256i factor = _mm256_set1_epi32(multiplier);
    if (shift > 0) return high8(_mm256_sll_epi32(value, _mm_cvtsi32_si128(shift)), factor);
    __m256i high = high8(value, factor);
    if (!shift) return high;
    if (!upward) high = _mm256_add_epi32(high, _mm256_srai_epi32(high, 31));
    const __m256i half = _mm256_set1_epi32(1 << (-shift - 1));
    return _mm256_sra_epi32(_mm256_add_epi32(high, half), _mm_cvtsi32_si128(-shift));
}

/* gruard_narrow of sixteen values plus the zero point. */
FOR_AVX2 ALWAYS __m128i narrow16(__m256i low, __m256i high, int32_t zero, int32_t lowest) {
    const __m256i offset = _mm256_set1_epi32(zero);
    const __m256i pairs = _mm256_permute4x64_epi64(
        _mm256_packs_epi32(_mm256_add_epi32(low, offset), _mm256_add_epi32(high, offset)), 0xD8);
    const __m128i codes =
        _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    return _mm_max_epi8(codes, _mm_set1_epi8((char)lowest));
}

/* The codes of a block of which `left` outputs are wanted. */
FOR_AVX2 ALWAYS void finish_avx2(const __m256i sums[2], const gruard_integer *bias, uint32_t left,
                             const gruard_operator *o, int8_t *output) {
    int32_t some[LANES] = {0};
    const void *from = bias;
    if (left < LANES) from = memcpy(some, (const void *)bias, left * sizeof *some);
    __m256i scaled[2];
    for (uint32_t half = 0; half < 2; half++) {
        const __m256i eight = _mm256_loadu_si256((const __m256i *)from + half);
        scaled[half] =
            scale8(_mm256_add_epi32(sums[half], eight), o->multiplier, o->shift, 1);
    }
    const __m128i codes = narrow16(scaled[0], scaled[1], o->out_zero, o->lowest);
    if (left >= LANES) _mm_storeu_si128((__m128i *)output, codes);
    else {
        int8_t all[LANES];
        _mm_storeu_si128((__m128i *)all, codes);
        memcpy(output, all, left);
    }
}

/* The sums of `blocks` neighbouring blocks, each in `chains`: an addition waits for the one before it
 * in its chain. Both are constants, so all sums stay in registers. */
VNNI ALWAYS void sum_vnni(const uint8_t *input, uint32_t groups, const int8_t *weights,
                          uint32_t blocks, uint32_t chains, __m512i *sums) {
    const size_t apart = (size_t)groups * BLOCK;
    __m512i parts[MOST_CHAINS][MOST_BLOCKS];
    for (uint32_t c = 0; c < chains; c++)
        for (uint32_t b = 0; b < blocks; b++) parts[c][b] = _mm512_setzero_si512();
    uint32_t g = 0;
    for (; g + chains <= groups; g += chains)
        for (uint32_t c = 0; c < chains; c++) {
            const __m512i four = _mm512_set1_epi32(group_at(input, g + c));
            for (uint32_t b = 0; b < blocks; b++)
                parts[c][b] = _mm512_dpbusd_epi32(
                    parts[c][b], four, _mm512_loadu_si512(weights + b * apart + (g + c) * BLOCK));
        }
    for (; g < groups; g++) {
        const __m512i four = _mm512_set1_epi32(group_at(input, g));
        for (uint32_t b = 0; b < blocks; b++)
            parts[0][b] = _mm512_dpbusd_epi32(
                parts[0][b], four, _mm512_loadu_si512(weights + b * apart + g * BLOCK));
    }
    for (uint32_t b = 0; b < blocks; b++) {
        sums[b] = parts[0][b];
        for (uint32_t c = 1; c < chains; c++) sums[b] = _mm512_add_epi32(sums[b], parts[c][b]);
    }
}

VNNI ALWAYS void rows_vnni(const uint8_t *input, uint32_t groups, const int8_t *weights,
                           const gruard_integer *bias, int8_t *output, uint32_t left,
                           const gruard_operator *o, uint32_t blocks, uint32_t chains) {
    __m512i sums[MOST_BLOCKS];
    sum_vnni(input, groups, weights, blocks, chains, sums);
    for (uint32_t b = 0; b < blocks; b++) {
        const __mmask16 lanes = lanes_of(left - b * LANES);
        const __m512i some = _mm512_maskz_loadu_epi32(lanes, bias + b * LANES);
        store16(output + b * LANES, lanes, product16(_mm512_add_epi32(sums[b], some), o),
                o->out_zero, o->lowest);
    }
}

VNNI static void with_vnni(
    const uint8_t *input, uint32_t groups, const int8_t *weights, const gruard_integer *bias,
    int8_t *output, const gruard_operator *o) {
    const size_t apart = (size_t)groups * BLOCK;
    const uint32_t all = (o->count + LANES - 1) / LANES;
    uint32_t row = 0, b = 0;
    for (; b + 4 <= all; b += 4, row += 4 * LANES)
        rows_vnni(input, groups, weights + b * apart, bias + row, output + row, o->count - row, o,
                  4, 2);
    for (; b + 2 <= all; b += 2, row += 2 * LANES)
        rows_vnni(input, groups, weights + b * apart, bias + row, output + row, o->count - row, o,
                  2, 4);
    if (b < all)
        rows_vnni(input, groups, weights + b * apart, bias + row, output + row, o->count - row, o,
                  1, 4);
}

#if KNOWS_AVX_VNNI
#define AVX_VNNI __attribute__((target("avx2,avxvnni")))

/* Add the products of one block, half by half. */
AVX_VNNI ALWAYS void add_avx_vnni(__m256i sums[2], int32_t group, const int8_t *weights) {
    const __m256i four = _mm256_set1_epi32(group);
    for (uint32_t half = 0; half < 2; half++) {
        const __m256i block = _mm256_loadu_si256((const __m256i *)weights + half);
        sums[half] = _mm256_dpbusd_avx_epi32(sums[half], four, block);
    }
}

AVX_VNNI ALWAYS void sum_avx_vnni(const uint8_t *input, uint32_t groups, const int8_t *weights,
                                  __m256i sums[2]) {
    __m256i parts[MOST_CHAINS][2];
    for (uint32_t c = 0; c < MOST_CHAINS; c++)
        parts[c][0] = parts[c][1] = _mm256_setzero_si256();
    uint32_t g = 0;
    for (; g + MOST_CHAINS <= groups; g += MOST_CHAINS)
        for (uint32_t c = 0; c < MOST_CHAINS; c++)
            add_avx_vnni(parts[c], group_at(input, g + c), weights + (g + c) * BLOCK);
    for (; g < groups; g++) add_avx_vnni(parts[0], group_at(input, g), weights + g * BLOCK);
    for (uint32_t half = 0; half < 2; half++) {
        __m256i sum = parts[0][half];
        for (uint32_t c = 1; c < MOST_CHAINS; c++) sum = _mm256_add_epi32(sum, parts[c][half]);
        sums[half] = sum;
    }
}

AVX_VNNI static void with_avx_vnni(
    const uint8_t *input, uint32_t groups, const int8_t *weights, const gruard_integer *bias,
    int8_t *output, const gruard_operator *o) {
    for (uint32_t row = 0; row < o->count; row += LANES, weights += (size_t)groups * BLOCK) {
        __m256i sums[2];
        sum_avx_vnni(input, groups, weights, sums);
        finish_avx2(sums, bias + row, o->count - row, o, output + row);
    }
}
#endif

/* Without VNNI two products are added in 16 bits, where 255 is too much: the highest bit of an input
 * is taken apart. Its products are small, so that those of HIGHS groups fit into 16 bits. */
enum { HIGHS = 127 };

FOR_AVX2 static void with_avx2(
    const uint8_t *input, uint32_t groups, const int8_t *weights, const gruard_integer *bias,
    int8_t *output, const gruard_operator *o) {
    const __m256i one = _mm256_set1_epi16(1), high_bit = _mm256_set1_epi16(128);
    uint8_t low[WIDEST + GROUP], high[WIDEST + GROUP];
    for (uint32_t i = 0; i < groups * GROUP; i++) low[i] = input[i] & 127, high[i] = input[i] >> 7;
    for (uint32_t row = 0; row < o->count; row += LANES) {
        __m256i sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (uint32_t g = 0; g < groups;) {
            const uint32_t end = groups - g > HIGHS ? g + HIGHS : groups;
            __m256i highs[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
            for (; g < end; g++, weights += BLOCK) {
                const __m256i a = _mm256_set1_epi32(group_at(low, g));
                const __m256i b = _mm256_set1_epi32(group_at(high, g));
                for (uint32_t half = 0; half < 2; half++) {
                    const __m256i w = _mm256_loadu_si256((const __m256i *)weights + half);
                    const __m256i pairs = _mm256_maddubs_epi16(a, w);
                    sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, one));
                    highs[half] = _mm256_add_epi16(highs[half], _mm256_maddubs_epi16(b, w));
                }
            }
            for (uint32_t half = 0; half < 2; half++)
                sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(highs[half], high_bit));
        }
        finish_avx2(sums, bias + row, o->count - row, o, output + row);
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

/* What this processor has, the best last; every thread that finds it unset chooses the same. */
static enum { UNSET, SSE2, AVX2, AVX_VNNI_ONLY, AVX512, AVX512_VBMI } level;

static int has_avx_vnni(void) {
#if KNOWS_AVX_VNNI
    return __builtin_cpu_supports("avxvnni");
#else
    return 0;
#endif
}

static int best_level(void) {
    if (level) return (int)level;
    const int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                     __builtin_cpu_supports("avx512vnni");
    if (wide) level = __builtin_cpu_supports("avx512vbmi") ? AVX512_VBMI : AVX512;
    else if (__builtin_cpu_supports("avx2")) level = has_avx_vnni() ? AVX_VNNI_ONLY : AVX2;
    else level = SSE2;
    return (int)level;
}

void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o) {
    uint8_t padded[WIDEST + GROUP];
    const uint32_t groups = (o->inputs + GROUP - 1) / GROUP;
    for (uint32_t i = 0; i < o->inputs; i++) padded[i] = (uint8_t)(input[i] + 128);
    memset(padded + o->inputs, 0, groups * GROUP - o->inputs);
    switch (best_level()) {
    case AVX512_VBMI:
    case AVX512: with_vnni(padded, groups, weights, bias, output, o); break;
#if KNOWS_AVX_VNNI
    case AVX_VNNI_ONLY: with_avx_vnni(padded, groups, weights, bias, output, o); break;
#endif
    case AVX2: with_avx2(padded, groups, weights, bias, output, o); break;
    default: with_sse2(padded, groups, weights, bias, output, o); break;
    }
}

VNNI static inline __m512i addend16(__m512i value, int32_t multiplier, int32_t shift, int once) {
    const __m512i factor = _mm512_set1_epi32(multiplier);
    const __m128i up = _mm_cvtsi32_si128(GRUARD_ADD_SHIFT + (once ? shift : 0));
    const __m512i high = high16(_mm512_sll_epi32(value, up), factor);
    return once ? high : halve16(high, -shift);
}

VNNI static void add_vnni(const gruard_operator *o, int8_t *arena, int32_t sign) {
    const uint32_t once = gruard_rounded_once(o->count, sign);
    for (uint32_t i = 0; i < o->count; i += LANES) {
        const __mmask16 lanes = lanes_of(o->count - i);
        const __m512i left = codes16(arena + o->left + i, lanes, o->left_zero);
        const __m512i right = codes16(arena + o->right + i, lanes, o->right_zero);
        const __m512i a = addend16(left, o->left_multiplier, o->left_shift, i < once);
        const __m512i b = addend16(right, o->right_multiplier, o->right_shift, i < once);
        const __m512i sum = sign > 0 ? _mm512_add_epi32(a, b) : _mm512_sub_epi32(a, b);
        store16(arena + o->out + i, lanes, scale16(sum, o->multiplier, o->shift), o->out_zero,
                -128);
    }
}

VNNI static void multiply_vnni(const gruard_operator *o, int8_t *arena) {
    for (uint32_t i = 0; i < o->count; i += LANES) {
        const __mmask16 lanes = lanes_of(o->count - i);
        const __m512i left = codes16(arena + o->left + i, lanes, o->left_zero);
        const __m512i right = codes16(arena + o->right + i, lanes, o->right_zero);
        const __m512i product = _mm512_mullo_epi32(left, right);
        store16(arena + o->out + i, lanes, scale16(product, o->multiplier, o->shift), o->out_zero,
                -128);
    }
}

VNNI static void linear_vnni(const gruard_operator *o, int8_t *arena) {
    const __m512i a = _mm512_set1_epi32(o->left_multiplier);
    const __m512i b = _mm512_set1_epi32(o->right_multiplier);
    const __m512i c = _mm512_set1_epi32(o->multiplier);
    for (uint32_t i = 0; i < o->count; i += LANES) {
        const __mmask16 lanes = lanes_of(o->count - i);
        const __m512i left = _mm512_mullo_epi32(codes16(arena + o->left + i, lanes, 0), a);
        const __m512i right = _mm512_mullo_epi32(codes16(arena + o->right + i, lanes, 0), b);
        const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(left, right), c);
        store16(arena + o->out + i, lanes, _mm512_srai_epi32(sum, GRUARD_LINEAR_SHIFT), 0, -128);
    }
}

/* For older processors the compiler vectorises, at the width of their unit. */
GRUARD_WIDE static void add_narrower(const gruard_operator *operator, int8_t *arena, int32_t sign) {
    const gruard_operator o = *operator; /* no store to the arena can change it */
    const int8_t *restrict left = arena + o.left, *restrict right = arena + o.right;
    int8_t *restrict out = arena + o.out;
    const uint32_t once = gruard_rounded_once(o.count, sign);
    for (uint32_t i = 0; i < once; i++)
        out[i] = gruard_narrow(gruard_add_once(left[i], right[i], &o), -128);
    for (uint32_t i = once; i < o.count; i++)
        out[i] = gruard_narrow(gruard_add_twice(left[i], right[i], sign, &o), -128);
}

GRUARD_WIDE static void linear_narrower(const gruard_operator *operator, int8_t *arena) {
    const gruard_operator o = *operator;
    const int8_t *restrict left = arena + o.left, *restrict right = arena + o.right;
    int8_t *restrict out = arena + o.out;
    for (uint32_t i = 0; i < o.count; i++) out[i] = gruard_linear_code(left[i], right[i], &o);
}

FOR_AVX2 ALWAYS __m256i codes8(const int8_t *codes, int32_t zero) {
    const __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)codes));
    return _mm256_sub_epi32(wide, _mm256_set1_epi32(zero));
}

/* The products of whole groups of sixteen; returns how many. */
FOR_AVX2 static uint32_t multiply_avx2(const gruard_operator *o, int8_t *arena) {
    const int8_t *left = arena + o->left, *right = arena + o->right;
    uint32_t i = 0;
    for (; i + LANES <= o->count; i += LANES) {
        __m256i scaled[2];
        for (uint32_t half = 0; half < 2; half++) {
            const __m256i a = codes8(left + i + 8 * half, o->left_zero);
            const __m256i b = codes8(right + i + 8 * half, o->right_zero);
            scaled[half] = scale8(_mm256_mullo_epi32(a, b), o->multiplier, o->shift, 0);
        }
        _mm_storeu_si128((__m128i *)(arena + o->out + i),
                         narrow16(scaled[0], scaled[1], o->out_zero, -128));
    }
    return i;
}

GRUARD_WIDE static void multiply_narrower(const gruard_operator *operator, int8_t *arena,
                                          uint32_t from) {
    const gruard_operator o = *operator;
    const int8_t *restrict left = arena + o.left, *restrict right = arena + o.right;
    int8_t *restrict out = arena + o.out;
    for (uint32_t i = from; i < o.count; i++)
        out[i] = gruard_narrow(gruard_multiply_codes(left[i], right[i], &o), -128);
}

void gruard_add(const gruard_operator *o, int8_t *arena, int32_t sign) {
    if (best_level() >= AVX512) add_vnni(o, arena, sign);
    else add_narrower(o, arena, sign);
}

void gruard_multiply(const gruard_operator *o, int8_t *arena) {
    if (best_level() >= AVX512) multiply_vnni(o, arena);
    else multiply_narrower(o, arena, best_level() >= AVX2 ? multiply_avx2(o, arena) : 0);
}

#define VBMI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi")))

/* The table in four registers: a code chooses within two of them, its sign between the pairs. */
VBMI static void look_up_vbmi(const int8_t *codes, int8_t *out, uint32_t count,
                              const int8_t *table) {
    const __m512i a = _mm512_loadu_si512(table), b = _mm512_loadu_si512(table + 64);
    const __m512i c = _mm512_loadu_si512(table + 128), d = _mm512_loadu_si512(table + 192);
    for (uint32_t i = 0; i < count; i += 64) {
        const __mmask64 lanes = count - i < 64 ? (1ull << (count - i)) - 1 : ~0ull;
        const __m512i at = _mm512_maskz_loadu_epi8(lanes, codes + i);
        const __m512i below = _mm512_permutex2var_epi8(a, at, b);
        const __m512i above = _mm512_permutex2var_epi8(c, at, d);
        _mm512_mask_storeu_epi8(out + i, lanes,
                                _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), above, below));
    }
}

void gruard_look_up(const int8_t *codes, int8_t *out, uint32_t count, const int8_t *table) {
    if (best_level() == AVX512_VBMI) {
        look_up_vbmi(codes, out, count, table);
        return;
    }
    const int8_t *const middle = table + 128;
    for (int8_t *const end = out + count; out < end;) *out++ = middle[*codes++];
}

void gruard_linear(const gruard_operator *o, int8_t *arena, const int8_t *table) {
    if (best_level() >= AVX512) linear_vnni(o, arena);
    else linear_narrower(o, arena);
    if (table) gruard_look_up(arena + o->out, arena + o->out, o->count, table);
}
