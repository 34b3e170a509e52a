/* The first convolution of EfficientNet-Lite: few input channels, padding "SAME", bias and ReLU6.
 * The image needs no gradient. An image's result is independent of the others, and its sums of the
 * gradients are added in the order of the images, so nothing depends on the number of threads. */
#include "inverted_residual.h"

#include <string.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(__GNUC__)

static ptrdiff_t rounded(ptrdiff_t count) { return (count + 15) / 16 * 16; }

/* shape: images, height, width, inputs, outputs, kernel, stride */
static First plan(const ptrdiff_t *shape) {
    First p = {.images = shape[0], .height = shape[1], .width = shape[2], .inputs = shape[3],
               .outputs = shape[4], .kernel = shape[5], .stride = shape[6]};
    p.out_height = (p.height + p.stride - 1) / p.stride;
    p.out_width = (p.width + p.stride - 1) / p.stride;
    const ptrdiff_t rows = (p.out_height - 1) * p.stride + p.kernel - p.height;
    const ptrdiff_t columns = (p.out_width - 1) * p.stride + p.kernel - p.width;
    p.top = rows > 0 ? rows / 2 : 0;
    p.left = columns > 0 ? columns / 2 : 0;
    p.depth = (p.kernel * p.kernel * p.inputs + 1) / 2 * 2; /* pairs of bfloat16 */
    return p;
}

static ptrdiff_t thread_space(const First *p) {
    const ptrdiff_t patches = rounded(p->out_width * p->depth + p->depth);
    const ptrdiff_t masked = rounded(p->out_width * p->outputs + p->outputs);
    return rounded(p->out_width) + 2 * patches + 2 * masked;
}

static FirstMemory thread_memory(const First *p, float *space) {
    const ptrdiff_t patches = rounded(p->out_width * p->depth + p->depth);
    const ptrdiff_t masked = rounded(p->out_width * p->outputs + p->outputs);
    FirstMemory m = {0};
    m.place = (int32_t *)space;
    for (ptrdiff_t j = 0; j < p->out_width; j++) m.place[j] = (int32_t)j;
    m.patches = space + rounded(p->out_width);
    m.operand = m.patches + patches;
    m.masked = m.operand + patches;
    m.columns = m.masked + masked;
    return m;
}

static ptrdiff_t image_sums(const First *p) { return rounded((p->depth + 1) * p->outputs); }

/* Floats of the workspace, forward or backward */
EXPORT ptrdiff_t first_convolution_space(const ptrdiff_t *shape, int threads) {
    const First p = plan(shape);
    const ptrdiff_t filters = rounded(p.depth * p.outputs);
    return 2 * filters + p.images * image_sums(&p) + threads * thread_space(&p);
}

static int this_thread(void) {
#if defined(_OPENMP)
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* out (images, out_height, out_width, outputs) = relu6(convolution of x + bias); filters (kernel,
 * kernel, inputs, outputs), outputs 16, 32 or 48 */
EXPORT void first_convolution_forward(const ptrdiff_t *shape, const float *x, const float *filters,
                                      const float *bias, float *out, float *workspace, int version,
                                      int threads) {
    const First p = plan(shape);
    const Work *work = inverted_residual_work(version);
    const ptrdiff_t count = p.kernel * p.kernel * p.inputs * p.outputs;
    const ptrdiff_t size = rounded(p.depth * p.outputs);
    float *whole = workspace, *packed = workspace + size, *memory = workspace + 2 * size;
    memset(whole, 0, (size_t)size * sizeof(float));
    memcpy(whole, filters, (size_t)count * sizeof(float));
    work->pack(whole, p.outputs, p.depth, p.outputs, p.outputs, packed);
#pragma omp parallel num_threads(threads)
    {
        const FirstMemory m = thread_memory(&p, memory + this_thread() * thread_space(&p));
#pragma omp for schedule(static)
        for (ptrdiff_t n = 0; n < p.images; n++)
            work->first_forward(&p, x + n * p.height * p.width * p.inputs, packed, bias,
                                out + n * p.out_height * p.out_width * p.outputs, &m);
    }
}

/* The gradients of the filters and of the bias, from the output and its gradient */
EXPORT void first_convolution_backward(const ptrdiff_t *shape, const float *x, const float *out,
                                       const float *grad, float *grad_filters, float *grad_bias,
                                       float *workspace, int version, int threads) {
    const First p = plan(shape);
    const Work *work = inverted_residual_work(version);
    const ptrdiff_t step = image_sums(&p), count = p.kernel * p.kernel * p.inputs * p.outputs;
    float *sums = workspace, *memory = workspace + p.images * step;
    memset(sums, 0, (size_t)(p.images * step) * sizeof(float));
#pragma omp parallel num_threads(threads)
    {
        const FirstMemory m = thread_memory(&p, memory + this_thread() * thread_space(&p));
#pragma omp for schedule(static)
        for (ptrdiff_t n = 0; n < p.images; n++) {
            const ptrdiff_t at = n * p.out_height * p.out_width * p.outputs;
            float *own = sums + n * step;
            work->first_backward(&p, x + n * p.height * p.width * p.inputs, out + at, grad + at,
                                 own, own + p.depth * p.outputs, &m);
        }
    }
    for (ptrdiff_t i = 0; i < count + p.outputs; i++) {
        const ptrdiff_t at = i < count ? i : p.depth * p.outputs + i - count;
        double total = 0.0;
        for (ptrdiff_t n = 0; n < p.images; n++) total += sums[n * step + at];
        if (i < count)
            grad_filters[i] = (float)total;
        else
            grad_bias[i - count] = (float)total;
    }
}

#else

EXPORT void first_convolution_space(void) {}
EXPORT void first_convolution_forward(void) {}
EXPORT void first_convolution_backward(void) {}

#endif
