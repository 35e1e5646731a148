/* Refuses compilers and options under which the records would not be the proven ones, bit for bit.
 *
 * What a compiler does not say about itself (fused multiply-add, denormals flushed to zero) is found
 * at the start, by a self-test. First of all headers of the core.
 */
#ifndef GRUARD_EXACT_H
#define GRUARD_EXACT_H

#include <float.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "gruard: big-endian processors are not supported, because blobs are little-endian"
#endif
#if defined(__x86_64__) && defined(__ILP32__)
#error "gruard: x32 is not supported, because it was never tested; compile for x86-64 (-m64)"
#endif
#if defined(__SIZEOF_INT__) && __SIZEOF_INT__ < 4
#error "gruard: processors of 8 and 16 bits are not supported, because int must have 32 bits"
#endif
/* 16 and 32 are about narrower types, in GNU's dialects of C for processors that have them. */
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 && \
    FLT_EVAL_METHOD != 32
#error "gruard: float32 must be computed in float32; use SSE (-mfpmath=sse) or -m64"
#endif
/* The parts of -ffast-math, which each have their own option. */
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error "gruard: -ffast-math, -Ofast and their parts change the bits; compile without"
#endif

#endif
