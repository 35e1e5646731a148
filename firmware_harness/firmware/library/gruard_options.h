/* The compiler's options that keep the proven bits, where a library cannot set options. Each source
 * file includes it first, so that it is compiled with them; code that uses the library is not. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off", "no-math-errno", "no-tree-vectorize")
#else
#pragma STDC FP_CONTRACT OFF
#endif
