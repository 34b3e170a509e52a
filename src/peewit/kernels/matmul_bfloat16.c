/* Products of small matrices in bfloat16, summed in float32: see matmul.c.
 *
 * AVX512-BF16 processors multiply two pairs of bfloat16 and add both products to a float32 in the
 * time of one float32 multiply-add. Other processors convert to float32, which is no faster.
 */
#include "matmul.h"

#include <string.h>

/* GCC supports the instruction since 10, Clang (which reports itself as GCC 4) since 9 */
#if defined(__x86_64__) && defined(__GNUC__) && (__GNUC__ >= 10 || defined(__clang__))
#define NATIVE 1
#include <immintrin.h>

/* 2 x 16 columns: 12 x 32 sums take 24 of the 32 registers */
__attribute__((target("avx512f,avx512bf16"), always_inline)) static inline void block(
    const int rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step, ptrdiff_t depth_step,
    const float *b, float *c, int add) {
    __m512 sum[12][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++)
            sum[r][v] = add ? _mm512_loadu_ps(c + r * GROUP + v * 16) : _mm512_setzero_ps();
    for (ptrdiff_t k = 0; k < depth; k++) {
        const __m512bh b0 = (__m512bh)_mm512_loadu_ps(b), b1 = (__m512bh)_mm512_loadu_ps(b + 16);
        for (int r = 0; r < rows; r++) {
            const __m512bh pair = (__m512bh)_mm512_set1_ps(a[r * row_step]);
            sum[r][0] = _mm512_dpbf16_ps(sum[r][0], pair, b0);
            sum[r][1] = _mm512_dpbf16_ps(sum[r][1], pair, b1);
        }
        a += depth_step;
        b += GROUP;
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++) _mm512_storeu_ps(c + r * GROUP + v * 16, sum[r][v]);
}

__attribute__((target("avx512f,avx512bf16"))) static void matmul_native(
    ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step, ptrdiff_t depth_step,
    const float *b, float *c, int add) {
    ptrdiff_t r = 0;
    for (; r + 12 <= rows; r += 12)
        block(12, depth, a + r * row_step, row_step, depth_step, b, c + r * GROUP, add);
    if (r + 8 <= rows) {
        block(8, depth, a + r * row_step, row_step, depth_step, b, c + r * GROUP, add);
        r += 8;
    }
    if (r < rows) block(4, depth, a + r * row_step, row_step, depth_step, b, c + r * GROUP, add);
}
#endif

EXPORT int has_native_bfloat16(void) {
#if defined(NATIVE)
    return __builtin_cpu_supports("avx512bf16") != 0;
#else
    return 0;
#endif
}

/* Unpack a bfloat16 from a pair in one float: the first is in the lower half */
static inline float half(float pair, int upper) {
    uint32_t both;
    memcpy(&both, &pair, sizeof both);
    both = upper ? both & 0xffff0000u : both << 16;
    memcpy(&pair, &both, sizeof pair);
    return pair;
}

FOR_EACH_CPU static void matmul_by_float32(ptrdiff_t rows, ptrdiff_t depth, const float *a,
                                           ptrdiff_t row_step, ptrdiff_t depth_step,
                                           const float *b, float *c, int add) {
    for (ptrdiff_t r = 0; r < rows; r++, a += row_step, c += GROUP) {
        float sum[GROUP];
        for (int n = 0; n < GROUP; n++) sum[n] = add ? c[n] : 0.0f;
        for (ptrdiff_t k = 0; k < depth; k++) {
            const float first = half(a[k * depth_step], 0), second = half(a[k * depth_step], 1);
            for (int n = 0; n < GROUP; n++)
                sum[n] += first * half(b[k * GROUP + n], 0) + second * half(b[k * GROUP + n], 1);
        }
        for (int n = 0; n < GROUP; n++) c[n] = sum[n];
    }
}

void matmul_bfloat16(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
                     ptrdiff_t depth_step, const float *b, float *c, int add) {
#if defined(NATIVE)
    if (has_native_bfloat16()) {
        matmul_native(rows, depth, a, row_step, depth_step, b, c, add);
        return;
    }
#endif
    matmul_by_float32(rows, depth, a, row_step, depth_step, b, c, add);
}
