/* inverted_residual_work.h for processors that multiply bfloat16: see matmul_bfloat16.c */
#include "inverted_residual.h"
#if defined(WORK_BFLOAT16)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,prefer-vector-width=512")
#endif
#define WORK inverted_residual_bfloat16
#define LANES 16
#define BFLOAT16
#include "inverted_residual_work.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
