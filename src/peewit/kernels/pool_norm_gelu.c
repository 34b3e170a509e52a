/* Max pooling (optional), batch normalisation and GELU, fused: the passes of the fast networks.
 *
 * Layout and order of the sums as in relu_norm_pool.c: float32, channels last, one sum per image,
 * added in order. Pooling precedes the normalisation, so all later passes process only a quarter of
 * the activation. GELU is the tanh approximation (Hendrycks and Gimpel 2016, arXiv 1606.08415,
 * section 2), computed as x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)): one exponential per
 * value.
 */
#include "common.h"

#include <string.h>

/* e^x in float32, within 2 units in the last place for |x| <= 87, the range that sigmoid needs:
 * 2^n, where n is the nearest integer to x / ln 2, times a polynomial on [-ln 2 / 2, ln 2 / 2]. */
static inline float exponential(float x) {
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    const float scaled = x * 1.44269504f;
    const float rounder = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float whole = (scaled + rounder) - rounder;
    const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float p = 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union {
        int32_t bits;
        float value;
    } power;
    power.bits = ((int32_t)whole + 127) * (1 << 23);
    return p * power.value;
}

static inline float gate(float u) { /* sigmoid(2 sqrt(2 / pi) (u + 0.044715 u^3)) */
    return 1.0f / (1.0f + exponential(-u * (1.59576912f + 0.07135481f * u * u)));
}

typedef struct {
    ptrdiff_t images, height, width, channels;
    ptrdiff_t pool; /* 2: 2x2 windows, an odd last row or column is dropped; 1: no pooling */
} Shape;

static inline ptrdiff_t pooled_size(const Shape *s) {
    return (s->height / s->pool) * (s->width / s->pool) * s->channels;
}

/* One image: pooled = maximum over each 2x2 window, place = index of the maximum, 0 to 3; sums of
 * pooled and of its square. Without pooling, only the sums of x and of its square. */
FOR_EACH_CPU static void image_pool(const float *x, const Shape *s, ptrdiff_t image, float *pooled,
                                    uint8_t *place, float *RESTRICT row_sums,
                                    double *RESTRICT sums) {
    const ptrdiff_t channels = s->channels, width = s->width;
    const ptrdiff_t rows = s->height / s->pool, columns = width / s->pool;
    float *RESTRICT row_squares = row_sums + channels;
    x += image * s->height * width * channels;
    for (ptrdiff_t c = 0; c < 2 * channels; c++) sums[c] = 0.0;
    for (ptrdiff_t i = 0; i < rows; i++) {
        memset(row_sums, 0, 2 * channels * sizeof(float));
        for (ptrdiff_t j = 0; j < columns; j++) {
            const float *RESTRICT corner = x + (s->pool * (i * width + j)) * channels;
            if (s->pool == 1) {
#pragma omp simd
                for (ptrdiff_t c = 0; c < channels; c++) {
                    row_sums[c] += corner[c];
                    row_squares[c] += corner[c] * corner[c];
                }
                continue;
            }
            const ptrdiff_t at = image * pooled_size(s) + (i * columns + j) * channels;
            float *RESTRICT out = pooled + at;
            uint8_t *RESTRICT which = place + at;
#pragma omp simd
            for (ptrdiff_t c = 0; c < channels; c++) {
                const float x0 = corner[c], x1 = corner[channels + c];
                const float x2 = corner[width * channels + c];
                const float x3 = corner[(width + 1) * channels + c];
                const float top = x1 > x0 ? x1 : x0, bottom = x3 > x2 ? x3 : x2;
                const int top_place = x1 > x0 ? 1 : 0, bottom_place = x3 > x2 ? 3 : 2;
                /* the sum propagates a NaN, which the comparisons would drop */
                const float together = x0 + x1 + x2 + x3;
                const float best = together == together ? (bottom > top ? bottom : top) : together;
                out[c] = best;
                which[c] = (uint8_t)(bottom > top ? bottom_place : top_place);
                row_sums[c] += best;
                row_squares[c] += best * best;
            }
        }
        for (ptrdiff_t c = 0; c < 2 * channels; c++) sums[c] += row_sums[c];
    }
}

/* One image: out = gelu(z * scale + shift) */
FOR_EACH_CPU static void image_activate(const float *z, ptrdiff_t pixels, ptrdiff_t channels,
                                        ptrdiff_t image, const float *RESTRICT scale,
                                        const float *RESTRICT shift, float *out) {
    for (ptrdiff_t p = image * pixels; p < (image + 1) * pixels; p++) {
        const float *RESTRICT from = z + p * channels;
        float *RESTRICT to = out + p * channels;
#pragma omp simd
        for (ptrdiff_t c = 0; c < channels; c++) {
            const float u = from[c] * scale[c] + shift[c];
            to[c] = u * gate(u);
        }
    }
}

/* One image, pooling and activation in one pass over x: out = gelu(pooled * scale + shift) */
FOR_EACH_CPU static void image_infer(const float *x, const Shape *s, ptrdiff_t image,
                                     const float *RESTRICT scale, const float *RESTRICT shift,
                                     float *out) {
    const ptrdiff_t channels = s->channels, width = s->width;
    const ptrdiff_t rows = s->height / 2, columns = width / 2;
    x += image * s->height * width * channels;
    out += image * rows * columns * channels;
    for (ptrdiff_t i = 0; i < rows; i++) {
        for (ptrdiff_t j = 0; j < columns; j++) {
            const float *RESTRICT corner = x + 2 * (i * width + j) * channels;
            float *RESTRICT to = out + (i * columns + j) * channels;
#pragma omp simd
            for (ptrdiff_t c = 0; c < channels; c++) {
                const float x0 = corner[c], x1 = corner[channels + c];
                const float x2 = corner[width * channels + c];
                const float x3 = corner[(width + 1) * channels + c];
                const float top = x1 > x0 ? x1 : x0, bottom = x3 > x2 ? x3 : x2;
                const float together = x0 + x1 + x2 + x3; /* propagates NaN, as in image_pool */
                const float best = together == together ? (bottom > top ? bottom : top) : together;
                const float u = best * scale[c] + shift[c];
                to[c] = u * gate(u);
            }
        }
    }
}

/* One image: slope = grad * gelu'(z * scale + shift); sums of slope and of slope * z */
FOR_EACH_CPU static void image_slopes(const float *z, const float *grad, ptrdiff_t pixels,
                                      ptrdiff_t channels, ptrdiff_t image,
                                      const float *RESTRICT scale, const float *RESTRICT shift,
                                      float *slope, float *RESTRICT run_sums,
                                      double *RESTRICT sums) {
    float *RESTRICT run_products = run_sums + channels;
    for (ptrdiff_t c = 0; c < 2 * channels; c++) sums[c] = 0.0;
    for (ptrdiff_t first = 0; first < pixels; first += RUN / 4) {
        const ptrdiff_t last = first + RUN / 4 < pixels ? first + RUN / 4 : pixels;
        memset(run_sums, 0, 2 * channels * sizeof(float));
        for (ptrdiff_t p = image * pixels + first; p < image * pixels + last; p++) {
            const float *RESTRICT from = z + p * channels, *RESTRICT g = grad + p * channels;
            float *RESTRICT to = slope + p * channels;
#pragma omp simd
            for (ptrdiff_t c = 0; c < channels; c++) {
                const float u = from[c] * scale[c] + shift[c];
                const float s = gate(u);
                const float rise = 1.59576912f + 0.21406443f * u * u;
                const float d = g[c] * (s + u * s * (1.0f - s) * rise);
                to[c] = d;
                run_sums[c] += d;
                run_products[c] += d * from[c];
            }
        }
        for (ptrdiff_t c = 0; c < 2 * channels; c++) sums[c] += run_sums[c];
    }
}

/* One image: overwrite x by the gradient of the loss with respect to x, from slope (see above) */
FOR_EACH_CPU static void image_unpool(float *x, const Shape *s, ptrdiff_t image, const float *z,
                                      const uint8_t *place, const float *slope,
                                      const float *RESTRICT scale, const float *RESTRICT constant,
                                      const float *RESTRICT factor) {
    const ptrdiff_t channels = s->channels, width = s->width;
    const ptrdiff_t rows = s->height / s->pool, columns = width / s->pool;
    const ptrdiff_t start = image * pooled_size(s);
    x += image * s->height * width * channels;
    if (s->pool == 1) { /* z is x */
        for (ptrdiff_t p = 0; p < rows * columns; p++) {
            float *RESTRICT cell = x + p * channels;
            const float *RESTRICT d = slope + start + p * channels;
#pragma omp simd
            for (ptrdiff_t c = 0; c < channels; c++)
                cell[c] = scale[c] * d[c] + constant[c] + factor[c] * cell[c];
        }
        return;
    }
    for (ptrdiff_t i = 0; i < rows; i++) {
        for (ptrdiff_t j = 0; j < columns; j++) {
            const ptrdiff_t at = start + (i * columns + j) * channels;
            const float *RESTRICT d = slope + at, *RESTRICT from = z + at;
            const uint8_t *RESTRICT which = place + at;
            float *RESTRICT upper = x + (2 * i * width + 2 * j) * channels;
            float *RESTRICT lower = upper + width * channels;
#pragma omp simd
            for (ptrdiff_t c = 0; c < channels; c++) {
                const float value = scale[c] * d[c] + constant[c] + factor[c] * from[c];
                upper[c] = which[c] == 0 ? value : 0.0f;
                upper[channels + c] = which[c] == 1 ? value : 0.0f;
                lower[c] = which[c] == 2 ? value : 0.0f;
                lower[channels + c] = which[c] == 3 ? value : 0.0f;
            }
        }
        if (width % 2) {
            memset(x + (2 * i * width + width - 1) * channels, 0, channels * sizeof(float));
            memset(x + ((2 * i + 1) * width + width - 1) * channels, 0, channels * sizeof(float));
        }
    }
    if (s->height % 2)
        memset(x + (s->height - 1) * width * channels, 0, width * channels * sizeof(float));
}

/* Forward pass in training. Without pooling, `pooled` is x itself and `place` is NULL.
 * workspace: (N + 1) * 2C doubles, followed by (N + 1) * 2C floats. */
EXPORT void pool_norm_gelu_forward(const float *x, ptrdiff_t images, ptrdiff_t height,
                                   ptrdiff_t width, ptrdiff_t channels, ptrdiff_t pool,
                                   const float *gamma, const float *beta, float *running_mean,
                                   float *running_variance, double momentum, double epsilon,
                                   float *pooled, uint8_t *place, float *mean,
                                   float *inverse_deviation, float *out, double *workspace,
                                   int threads) {
    const Shape shape = {images, height, width, channels, pool};
    const ptrdiff_t pixels = (height / pool) * (width / pool);
    double *total = workspace + images * 2 * channels;
    float *scale = (float *)(total + 2 * channels), *shift = scale + channels;
    float *row_sums = shift + channels;
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t n = 0; n < images; n++)
        image_pool(x, &shape, n, pooled, place, row_sums + n * 2 * channels,
                   workspace + n * 2 * channels);
    add_images(workspace, images, 2 * channels, total);
    normalise(total, (double)(images * pixels), channels, gamma, beta, running_mean,
              running_variance, momentum, epsilon, mean, inverse_deviation, scale, shift);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t n = 0; n < images; n++)
        image_activate(pool == 1 ? x : pooled, pixels, channels, n, scale, shift, out);
}

/* Forward pass in inference. scale and shift (C) are computed from the running statistics. */
EXPORT void pool_norm_gelu_inference(const float *x, ptrdiff_t images, ptrdiff_t height,
                                     ptrdiff_t width, ptrdiff_t channels, ptrdiff_t pool,
                                     const float *scale, const float *shift, float *out,
                                     int threads) {
    const Shape shape = {images, height, width, channels, pool};
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t n = 0; n < images; n++) {
        if (pool == 1)
            image_activate(x, height * width, channels, n, scale, shift, out);
        else
            image_infer(x, &shape, n, scale, shift, out);
    }
}

/* Backward pass. x is overwritten by its own gradient; slope is scratch memory, (N, h, w, C), where
 * h x w is the pooled size.
 * workspace: (N + 1) * 2C doubles, followed by (2N + 4) * C floats. */
EXPORT void pool_norm_gelu_backward(float *x, ptrdiff_t images, ptrdiff_t height, ptrdiff_t width,
                                    ptrdiff_t channels, ptrdiff_t pool, const float *grad,
                                    const float *pooled, const uint8_t *place, const float *gamma,
                                    const float *beta, const float *mean,
                                    const float *inverse_deviation, float *grad_gamma,
                                    float *grad_beta, float *slope, double *workspace,
                                    int threads) {
    const Shape shape = {images, height, width, channels, pool};
    const ptrdiff_t pixels = (height / pool) * (width / pool);
    const float *z = pool == 1 ? x : pooled;
    double *total = workspace + images * 2 * channels;
    float *scale = (float *)(total + 2 * channels), *shift = scale + channels;
    float *constant = shift + channels, *factor = constant + channels;
    float *run_sums = factor + channels;
    (void)threads;
    for (ptrdiff_t c = 0; c < channels; c++) {
        scale[c] = gamma[c] * inverse_deviation[c];
        shift[c] = beta[c] - mean[c] * scale[c];
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t n = 0; n < images; n++)
        image_slopes(z, grad, pixels, channels, n, scale, shift, slope,
                     run_sums + n * 2 * channels, workspace + n * 2 * channels);
    add_images(workspace, images, 2 * channels, total);
    normalise_backward(total, (double)(images * pixels), channels, gamma, mean, inverse_deviation,
                       grad_gamma, grad_beta, scale, constant, factor);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t n = 0; n < images; n++)
        image_unpool(x, &shape, n, z, place, slope, scale, constant, factor);
}
