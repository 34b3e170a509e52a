/* inverted_residual_work.h for processors with AVX-512 */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#endif
#define WORK inverted_residual_avx512
#define LANES 16
#include "inverted_residual_work.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
