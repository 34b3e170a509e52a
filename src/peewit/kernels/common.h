/* Shared by all kernels: portability macros and the statistics of batch normalisation. */
#ifndef PEEWIT_COMMON_H
#define PEEWIT_COMMON_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* On x86-64 Linux, GCC and Clang compile each worker function three times (AVX-512, AVX2, baseline)
 * and the dynamic loader picks the version for this processor. Older compilers do not support these
 * target names: they compile the loops once, and only the matrix products dispatch at run time. */
#if defined(__x86_64__) && defined(__linux__) && \
    ((defined(__clang__) && __clang_major__ >= 18) || \
     (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 12))
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

#if defined(_MSC_VER)
#define EXPORT __declspec(dllexport)
#define RESTRICT __restrict
#else
#define EXPORT __attribute__((visibility("default")))
#define RESTRICT restrict
#endif

/* A float32 partial sum covers at most this many pixels before it is added to a double */
#define RUN 64

/* total[c] = sum of sums[image][c] over the images, always in the same order */
static inline void add_images(const double *sums, ptrdiff_t images, ptrdiff_t count,
                              double *total) {
    for (ptrdiff_t c = 0; c < count; c++) total[c] = 0.0;
    for (ptrdiff_t n = 0; n < images; n++)
        for (ptrdiff_t c = 0; c < count; c++) total[c] += sums[n * count + c];
}

/* From the sums of the values and of their squares, `count` values per channel: compute the batch
 * statistics, update the running statistics, and express the normalisation as
 * value * scale + shift. */
static inline void normalise(const double *total, double count, ptrdiff_t channels,
                             const float *gamma, const float *beta, float *running_mean,
                             float *running_variance, double momentum, double epsilon, float *mean,
                             float *inverse_deviation, float *scale, float *shift) {
    for (ptrdiff_t c = 0; c < channels; c++) {
        const double average = total[c] / count;
        const double centred = total[channels + c] / count - average * average;
        const double variance = centred < 0.0 ? 0.0 : centred; /* rounding can make it negative */
        const double unbiased = count > 1.0 ? variance * count / (count - 1.0) : variance;
        mean[c] = (float)average;
        inverse_deviation[c] = (float)(1.0 / sqrt(variance + epsilon));
        running_mean[c] = (float)((1.0 - momentum) * running_mean[c] + momentum * average);
        running_variance[c] = (float)((1.0 - momentum) * running_variance[c] + momentum * unbiased);
        scale[c] = gamma[c] * inverse_deviation[c];
        shift[c] = beta[c] - mean[c] * scale[c];
    }
}

/* From the sums of gradient and of gradient * value: compute the gradients of gamma and beta, and
 * express the gradient of the input as scale * gradient + constant + slope * value. It includes the
 * paths through the batch mean and variance (Ioffe and Szegedy 2015, section 3). */
static inline void normalise_backward(const double *total, double count, ptrdiff_t channels,
                                      const float *gamma, const float *mean,
                                      const float *inverse_deviation, float *grad_gamma,
                                      float *grad_beta, float *scale, float *constant,
                                      float *slope) {
    for (ptrdiff_t c = 0; c < channels; c++) {
        const double inverse = inverse_deviation[c], average = mean[c];
        const double beta_sum = total[c];
        const double gamma_sum = (total[channels + c] - average * beta_sum) * inverse;
        const double factor = gamma[c] * inverse;
        grad_beta[c] = (float)beta_sum;
        grad_gamma[c] = (float)gamma_sum;
        scale[c] = (float)factor;
        slope[c] = (float)(-factor * inverse * gamma_sum / count);
        constant[c] = (float)(factor * (average * inverse * gamma_sum - beta_sum) / count);
    }
}

#endif
