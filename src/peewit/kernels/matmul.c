/* Products of small matrices whose sums stay in registers during the loop over the depth.
 *
 * Goto and van de Geijn 2008 (Anatomy of high-performance matrix multiplication): a block of sums,
 * rows x columns, fills the registers, so that each loaded number is used many times. 12 x 32 sums
 * take 24 of the 32 registers of AVX-512, 6 x 16 sums take 12 of the 16 of AVX2.
 */
#include "matmul.h"

#if defined(__GNUC__)

#define BLOCK(NAME, VECTOR, WIDTH)                                                                 \
    static inline __attribute__((always_inline)) void NAME(                                        \
        const int rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step, ptrdiff_t depth_step, \
        const float *b, float *c, int add) {                                                       \
        VECTOR sum[12][2];                                                                         \
        for (int r = 0; r < rows; r++)                                                             \
            for (int v = 0; v < 2; v++)                                                            \
                sum[r][v] = add ? *(const VECTOR *)(c + r * GROUP + v * WIDTH) : (VECTOR){0};      \
        for (ptrdiff_t k = 0; k < depth; k++) {                                                    \
            const VECTOR b0 = *(const VECTOR *)b, b1 = *(const VECTOR *)(b + WIDTH);               \
            for (int r = 0; r < rows; r++) {                                                       \
                sum[r][0] += a[r * row_step] * b0;                                                 \
                sum[r][1] += a[r * row_step] * b1;                                                 \
            }                                                                                      \
            a += depth_step;                                                                       \
            b += GROUP;                                                                            \
        }                                                                                          \
        for (int r = 0; r < rows; r++)                                                             \
            for (int v = 0; v < 2; v++) *(VECTOR *)(c + r * GROUP + v * WIDTH) = sum[r][v];        \
    }

typedef float Eight __attribute__((vector_size(32), aligned(4), may_alias));
BLOCK(block8, Eight, 8)

static inline __attribute__((always_inline)) void matmul8(ptrdiff_t rows, ptrdiff_t depth,
                                                          const float *a, ptrdiff_t row_step,
                                                          ptrdiff_t depth_step, const float *b,
                                                          float *c, int add) {
    for (int half = 0; half < GROUP; half += 16) {
        ptrdiff_t r = 0;
        for (; r + 6 <= rows; r += 6)
            block8(6, depth, a + r * row_step, row_step, depth_step, b + half,
                   c + r * GROUP + half, add);
        for (; r < rows; r += 2)
            block8(2, depth, a + r * row_step, row_step, depth_step, b + half,
                   c + r * GROUP + half, add);
    }
}

#if defined(__x86_64__)
typedef float Sixteen __attribute__((vector_size(64), aligned(4), may_alias));
BLOCK(block16, Sixteen, 16)

__attribute__((target("avx512f"))) static void matmul_avx512(ptrdiff_t rows, ptrdiff_t depth,
                                                             const float *a, ptrdiff_t row_step,
                                                             ptrdiff_t depth_step, const float *b,
                                                             float *c, int add) {
    ptrdiff_t r = 0;
    for (; r + 12 <= rows; r += 12)
        block16(12, depth, a + r * row_step, row_step, depth_step, b, c + r * GROUP, add);
    if (r + 8 <= rows) {
        block16(8, depth, a + r * row_step, row_step, depth_step, b, c + r * GROUP, add);
        r += 8;
    }
    if (r < rows)
        block16(4, depth, a + r * row_step, row_step, depth_step, b, c + r * GROUP, add);
}

__attribute__((target("avx2,fma"))) static void matmul_avx2(ptrdiff_t rows, ptrdiff_t depth,
                                                            const float *a, ptrdiff_t row_step,
                                                            ptrdiff_t depth_step, const float *b,
                                                            float *c, int add) {
    matmul8(rows, depth, a, row_step, depth_step, b, c, add);
}
#endif

void matmul(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
            ptrdiff_t depth_step, const float *b, float *c, int add) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        matmul_avx512(rows, depth, a, row_step, depth_step, b, c, add);
        return;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        matmul_avx2(rows, depth, a, row_step, depth_step, b, c, add);
        return;
    }
#endif
    matmul8(rows, depth, a, row_step, depth_step, b, c, add);
}

#else /* a compiler without vector extensions */

void matmul(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
            ptrdiff_t depth_step, const float *b, float *c, int add) {
    for (ptrdiff_t r = 0; r < rows; r++, a += row_step, c += GROUP) {
        float sum[GROUP];
        for (int n = 0; n < GROUP; n++) sum[n] = add ? c[n] : 0.0f;
        for (ptrdiff_t k = 0; k < depth; k++)
            for (int n = 0; n < GROUP; n++) sum[n] += a[k * depth_step] * b[k * GROUP + n];
        for (int n = 0; n < GROUP; n++) c[n] = sum[n];
    }
}

#endif
