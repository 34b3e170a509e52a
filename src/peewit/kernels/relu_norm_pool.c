/* ReLU, batch normalisation and 2x2 max pooling, fused: the passes of the tutorial's network.
 *
 * As separate layers after a 3x3 convolution, each would read and write the whole activation (7.4
 * MB in the tutorial's first layer at batch size 32). The fused forward pass reads it twice and
 * writes only the pooled quarter; the backward pass reads and writes it once.
 *
 * Layout: float32, channels last, (N, H, W, C) contiguous. Sums are computed per image, and the
 * per-image sums are added in order, so the results do not depend on the number of threads.
 */
#include "common.h"

/* Channels per block: one AVX-512 register, two AVX2 registers, four NEON or SSE registers. The
 * accumulators of a block stay in registers during the loop over the pixels. */
#define LANES 16

typedef struct {
    const float *x; /* output of the convolution, (N, H, W, C) */
    ptrdiff_t height, width, channels;
} Activation;

static inline float relu(float value) { return value < 0.0f ? 0.0f : value; /* NaN stays NaN */ }

/* Over the pixels of one image: sums[0..C) = sum of relu(x), sums[C..2C) = sum of relu(x)^2 */
FOR_EACH_CPU static void image_moments(const Activation *in, ptrdiff_t image, double *sums) {
    const ptrdiff_t channels = in->channels, pixels = in->height * in->width;
    const float *x = in->x + image * pixels * channels;
    for (ptrdiff_t c = 0; c < channels; c += LANES) {
        const int lanes = channels - c < LANES ? (int)(channels - c) : LANES;
        double total[LANES] = {0}, total_squares[LANES] = {0};
        for (ptrdiff_t first = 0; first < pixels; first += RUN) {
            const ptrdiff_t last = first + RUN < pixels ? first + RUN : pixels;
            float sum[LANES] = {0}, squares[LANES] = {0};
            for (ptrdiff_t p = first; p < last; p++) {
                const float *row = x + p * channels + c;
                if (lanes == LANES) { /* constant trip count: the sums stay in registers */
#pragma omp simd
                    for (int k = 0; k < LANES; k++) {
                        const float y = relu(row[k]);
                        sum[k] += y;
                        squares[k] += y * y;
                    }
                } else {
                    for (int k = 0; k < lanes; k++) {
                        const float y = relu(row[k]);
                        sum[k] += y;
                        squares[k] += y * y;
                    }
                }
            }
            for (int k = 0; k < LANES; k++) {
                total[k] += sum[k];
                total_squares[k] += squares[k];
            }
        }
        for (int k = 0; k < lanes; k++) {
            sums[c + k] = total[k];
            sums[channels + c + k] = total_squares[k];
        }
    }
}

/* One image: pooled = maximum of relu(x) * scale + shift over each 2x2 window; chosen = relu(x) at
 * the maximum; place = index of the maximum, 0 to 3 (both NULL for inference). */
FOR_EACH_CPU static void image_normalise_pool(const Activation *in, ptrdiff_t image,
                                              const float *RESTRICT scale,
                                              const float *RESTRICT shift, float *pooled,
                                              float *chosen, uint8_t *place) {
    const ptrdiff_t channels = in->channels, width = in->width;
    const ptrdiff_t rows = in->height / 2, columns = width / 2;
    const float *x = in->x + image * in->height * width * channels;
    const ptrdiff_t start = image * rows * columns * channels;
    for (ptrdiff_t i = 0; i < rows; i++) {
        for (ptrdiff_t j = 0; j < columns; j++) {
            const float *RESTRICT corner = x + (2 * i * width + 2 * j) * channels;
            const ptrdiff_t at = start + (i * columns + j) * channels;
            float *RESTRICT out = pooled + at;
            if (place == NULL) {
                for (ptrdiff_t c = 0; c < channels; c++) {
                    const float a = relu(corner[c]) * scale[c] + shift[c];
                    const float b = relu(corner[channels + c]) * scale[c] + shift[c];
                    const float d = relu(corner[width * channels + c]) * scale[c] + shift[c];
                    const float e = relu(corner[(width + 1) * channels + c]) * scale[c] + shift[c];
                    const float top = b > a ? b : a, bottom = e > d ? e : d;
                    out[c] = bottom > top ? bottom : top;
                }
                continue;
            }
            float *RESTRICT select = chosen + at;
            uint8_t *RESTRICT which = place + at;
#pragma omp simd
            for (ptrdiff_t c = 0; c < channels; c++) {
                /* with a negative scale, the maximum after scaling is the minimum before it */
                const float sign = scale[c] < 0.0f ? -1.0f : 1.0f;
                const float y0 = relu(corner[c]) * sign;
                const float y1 = relu(corner[channels + c]) * sign;
                const float y2 = relu(corner[width * channels + c]) * sign;
                const float y3 = relu(corner[(width + 1) * channels + c]) * sign;
                const float top = y1 > y0 ? y1 : y0, bottom = y3 > y2 ? y3 : y2;
                const int top_place = y1 > y0 ? 1 : 0, bottom_place = y3 > y2 ? 3 : 2;
                const float y = (bottom > top ? bottom : top) * sign;
                const int index = bottom > top ? bottom_place : top_place;
                out[c] = y * scale[c] + shift[c];
                select[c] = y;
                which[c] = (uint8_t)index;
            }
        }
    }
}

/* Over one image: sums[0..C) = sum of grad, sums[C..2C) = sum of grad * chosen */
FOR_EACH_CPU static void image_gradient_sums(const float *grad, const float *chosen,
                                             ptrdiff_t pixels, ptrdiff_t channels, ptrdiff_t image,
                                             double *RESTRICT sums) {
    const ptrdiff_t start = image * pixels * channels;
    for (ptrdiff_t c = 0; c < 2 * channels; c++) sums[c] = 0.0;
    for (ptrdiff_t p = 0; p < pixels; p++) {
        const float *g = grad + start + p * channels, *y = chosen + start + p * channels;
        for (ptrdiff_t c = 0; c < channels; c++) {
            sums[c] += g[c];
            sums[channels + c] += g[c] * y[c];
        }
    }
}

/* One image: overwrite x by the gradient of the loss with respect to the convolution's output,
 * (x > 0) * (scale * routed + constant + slope * x), where routed is the pooled gradient at the
 * maximum of each 2x2 window and 0 elsewhere. sums[0..C) = its sum, the gradient of the bias. */
FOR_EACH_CPU static void image_backward(float *x, ptrdiff_t height, ptrdiff_t width,
                                        ptrdiff_t channels, ptrdiff_t image, const float *grad,
                                        const uint8_t *place, const float *RESTRICT scale,
                                        const float *RESTRICT constant,
                                        const float *RESTRICT slope, float *RESTRICT row_sums,
                                        double *RESTRICT sums) {
    const ptrdiff_t rows = height / 2, columns = width / 2;
    x += image * height * width * channels;
    grad += image * rows * columns * channels;
    place += image * rows * columns * channels;
    for (ptrdiff_t c = 0; c < channels; c++) sums[c] = 0.0;
    for (ptrdiff_t i = 0; i < height; i++) {
        for (ptrdiff_t c = 0; c < channels; c++) row_sums[c] = 0.0f;
        for (ptrdiff_t j = 0; j < width; j++) {
            float *RESTRICT cell = x + (i * width + j) * channels;
            /* with an odd size, the last row or column is in no window, but in the statistics */
            if (i / 2 < rows && j / 2 < columns) {
                const ptrdiff_t at = ((i / 2) * columns + j / 2) * channels;
                const float *RESTRICT g = grad + at;
                const uint8_t *RESTRICT which = place + at;
                const uint8_t here = (uint8_t)((i % 2) * 2 + j % 2);
                for (ptrdiff_t c = 0; c < channels; c++) {
                    const float routed = which[c] == here ? g[c] : 0.0f;
                    const float value = scale[c] * routed + constant[c] + slope[c] * cell[c];
                    const float result = cell[c] > 0.0f ? value : 0.0f;
                    cell[c] = result;
                    row_sums[c] += result;
                }
            } else {
                for (ptrdiff_t c = 0; c < channels; c++) {
                    const float value = constant[c] + slope[c] * cell[c];
                    const float result = cell[c] > 0.0f ? value : 0.0f;
                    cell[c] = result;
                    row_sums[c] += result;
                }
            }
        }
        for (ptrdiff_t c = 0; c < channels; c++) sums[c] += row_sums[c];
    }
}

/* Forward pass in training. mean and inverse_deviation (C) are saved for the backward pass; the
 * running statistics become (1 - momentum) * running + momentum * batch, with the unbiased
 * variance. workspace: (N + 1) * 2C doubles, followed by 2C floats. */
EXPORT void relu_norm_pool_forward(const float *x, ptrdiff_t images, ptrdiff_t height,
                                   ptrdiff_t width, ptrdiff_t channels, const float *gamma,
                                   const float *beta, float *running_mean, float *running_variance,
                                   double momentum, double epsilon, float *pooled, float *chosen,
                                   uint8_t *place, float *mean, float *inverse_deviation,
                                   double *workspace, int threads) {
    const Activation in = {x, height, width, channels};
    double *total = workspace + images * 2 * channels;
    float *scale = (float *)(total + 2 * channels), *shift = scale + channels;
    const double count = (double)(images * height * width);
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t n = 0; n < images; n++) image_moments(&in, n, workspace + n * 2 * channels);
    add_images(workspace, images, 2 * channels, total);
    normalise(total, count, channels, gamma, beta, running_mean, running_variance, momentum,
              epsilon, mean, inverse_deviation, scale, shift);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t n = 0; n < images; n++)
        image_normalise_pool(&in, n, scale, shift, pooled, chosen, place);
}

/* Forward pass in inference. scale and shift (C) are computed from the running statistics. */
EXPORT void relu_norm_pool_inference(const float *x, ptrdiff_t images, ptrdiff_t height,
                                     ptrdiff_t width, ptrdiff_t channels, const float *scale,
                                     const float *shift, float *pooled, int threads) {
    const Activation in = {x, height, width, channels};
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t n = 0; n < images; n++)
        image_normalise_pool(&in, n, scale, shift, pooled, NULL, NULL);
}

/* Backward pass. x is overwritten by its own gradient.
 * workspace: (N + 1) * 2C doubles, followed by (N + 3) * C floats. */
EXPORT void relu_norm_pool_backward(float *x, ptrdiff_t images, ptrdiff_t height, ptrdiff_t width,
                                    ptrdiff_t channels, const float *grad, const float *chosen,
                                    const uint8_t *place, const float *gamma, const float *mean,
                                    const float *inverse_deviation, float *grad_gamma,
                                    float *grad_beta, float *grad_bias, double *workspace,
                                    int threads) {
    const ptrdiff_t pixels = (height / 2) * (width / 2);
    const double count = (double)(images * height * width);
    double *total = workspace + images * 2 * channels;
    float *scale = (float *)(total + 2 * channels), *constant = scale + channels;
    float *slope = constant + channels, *row_sums = slope + channels;
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t n = 0; n < images; n++)
        image_gradient_sums(grad, chosen, pixels, channels, n, workspace + n * 2 * channels);
    add_images(workspace, images, 2 * channels, total);
    normalise_backward(total, count, channels, gamma, mean, inverse_deviation, grad_gamma,
                       grad_beta, scale, constant, slope);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t n = 0; n < images; n++)
        image_backward(x, height, width, channels, n, grad, place, scale, constant, slope,
                       row_sums + n * channels, workspace + n * channels);
    add_images(workspace, images, channels, total);
    for (ptrdiff_t c = 0; c < channels; c++) grad_bias[c] = (float)total[c];
}
