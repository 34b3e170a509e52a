/* inverted_residual_work.h for processors with AVX2 */
#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define WORK inverted_residual_avx2
#define LANES 8
#include "inverted_residual_work.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
