/* The inverted residual block of EfficientNet-Lite, forward and backward: expand by 1x1, bias,
 * ReLU6; depthwise convolution, bias, ReLU6; project by 1x1, bias; add the input.
 *
 * The inner activations are six times as large as the block's input and output, and do not fit into
 * the cache. But a channel of them depends on no other: so a group of 16 to 48 channels of a few
 * images is expanded, filtered and projected before the next, and nothing of it is written to
 * memory. The backward pass computes the group again, which takes a seventh of the arithmetic, then
 * its gradients; only the block's input has to be kept.
 *
 * The expansion writes its pixels into a buffer with a border of zeros, so the depthwise convolution
 * needs no special cases at the edges. Its gradient with stride 2 is that of stride 1, with zeros
 * between the pixels.
 *
 * Layout: float32, channels last, (N, H, W, C) contiguous; inputs and outputs multiples of 8, inner
 * channels of 16. Each unit of images has its own sums of the weights' gradients, which are added in
 * the order of the images, so no result depends on the number of threads.
 */
#include "inverted_residual.h"

#include <string.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(__GNUC__) /* vector extensions */

EXPORT int has_inverted_residual(void) { return 1; }

static ptrdiff_t larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }
static ptrdiff_t rounded(ptrdiff_t count) { return ceil_div(count, 16) * 16; }

/* The fastest version for float32 or bfloat16 on this processor; tests ask for the others */
enum { FLOAT32, BFLOAT16, AVX2, PORTABLE };

const Work *inverted_residual_work(int version) {
#if defined(WORK_BFLOAT16)
    if (version == BFLOAT16) return &inverted_residual_bfloat16;
#endif
#if defined(__x86_64__)
    if (version == FLOAT32 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &inverted_residual_avx512;
    if (version != PORTABLE && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &inverted_residual_avx2;
#endif
    (void)version;
    return &inverted_residual_portable;
}

/* Floats of four buffers of a strip, which should stay in the L2 cache */
#define CACHED (128 * 1024)

/* shape: images, height, width, inputs, inner, outputs, kernel, stride, expands, residual */
static Block plan(const ptrdiff_t *shape, int version) {
    Block p = {.images = shape[0], .height = shape[1], .width = shape[2], .inputs = shape[3],
               .inner = shape[4], .outputs = shape[5], .kernel = shape[6], .stride = shape[7],
               .expands = shape[8] != 0, .residual = shape[9] != 0,
               .pairs = version == BFLOAT16 ? 2 : 1};
    p.out_height = ceil_div(p.height, p.stride);
    p.out_width = ceil_div(p.width, p.stride);
    p.top = larger((p.out_height - 1) * p.stride + p.kernel - p.height, 0) / 2;
    p.left = larger((p.out_width - 1) * p.stride + p.kernel - p.width, 0) / 2;
    p.group = p.inner % 48 == 0 ? 48 : p.inner % 32 == 0 ? 32 : 16;
    p.groups = p.inner / p.group;
    /* small images together, for long products, but enough units for several threads */
    p.unit = smaller(larger(smaller(784 / (p.height * p.width), 4), 1), p.images);
    p.units = ceil_div(p.images, p.unit);
    /* strips of large images that fit into the cache; pixels are paired, hence an even width */
    const ptrdiff_t row_floats = p.stride * p.width * p.group * 4;
    p.strip = p.out_height;
    if (p.unit == 1 && p.width % 4 == 0 && row_floats * p.out_height > CACHED)
        p.strip = larger(CACHED / row_floats, 1);
    p.rows = p.strip * p.stride + 2 * (p.kernel - 1);
    p.columns = p.width + p.kernel - 1;
    return p;
}

/* Take `count` floats from the workspace, in whole cache lines; from NULL, only count them */
static float *take(float *workspace, ptrdiff_t *used, ptrdiff_t count) {
    float *found = workspace == NULL ? NULL : workspace + *used;
    *used += rounded(count);
    return found;
}

static Memory thread_memory(const Block *p, int back, float *workspace, ptrdiff_t *used) {
    const ptrdiff_t pixels = p->unit * p->height * p->width;
    const ptrdiff_t out_pixels = p->unit * p->out_height * p->out_width;
    const ptrdiff_t strip_pixels = p->unit * p->rows * p->width;
    const ptrdiff_t padded = p->unit * p->rows * p->columns * p->group;
    const ptrdiff_t pairs = p->pairs == 2;
    Memory m = {0};
    m.inner_place = (int32_t *)take(workspace, used, pixels);
    m.spread_place = (int32_t *)take(workspace, used, out_pixels);
    m.inner = take(workspace, used, padded);
    m.filtered = take(workspace, used, p->unit * p->strip * p->out_width * p->group);
    m.sums = take(workspace, used,
                  larger(out_pixels * rounded(p->outputs), back ? pixels * rounded(p->inputs) : 0));
    m.x_rows = take(workspace, used, pairs * pixels * p->inputs / 2);
    m.rows = take(workspace, used, pairs * strip_pixels * p->group / 2);
    m.scratch = take(workspace, used, larger(p->inputs, p->outputs) * p->group);
    if (back) {
        m.spread = take(workspace, used, padded);
        m.grad_inner = take(workspace, used, strip_pixels * p->group);
        m.x_columns = take(workspace, used, pairs * (pixels + 1) / 2 * p->inputs);
        m.grad_rows = take(workspace, used, pairs * out_pixels * p->outputs / 2);
        m.grad_columns = take(workspace, used, pairs * (out_pixels + 1) / 2 * p->outputs);
        m.columns = take(workspace, used, pairs * (strip_pixels + 1) / 2 * p->group);
    }
    return m;
}

static void prepare(const Block *p, const Memory *m, int back) {
    const size_t bytes = (size_t)(p->unit * p->rows * p->columns * p->group) * sizeof(float);
    memset(m->inner, 0, bytes);
    if (back) memset(m->spread, 0, bytes);
    const ptrdiff_t right = p->kernel - 1 - p->left;
    ptrdiff_t at = 0, out_at = 0;
    for (ptrdiff_t n = 0; n < p->unit; n++) {
        for (ptrdiff_t i = 0; i < p->height; i++)
            for (ptrdiff_t j = 0; j < p->width; j++)
                m->inner_place[at++] = (int32_t)((n * p->rows + i) * p->columns + j + p->left);
        for (ptrdiff_t i = 0; i < p->out_height; i++)
            for (ptrdiff_t j = 0; j < p->out_width; j++)
                m->spread_place[out_at++] = (int32_t)((n * p->rows + i * p->stride) * p->columns +
                                                      j * p->stride + right);
    }
}

static Weights group_weights(const Block *p, int back, float *workspace, ptrdiff_t *used) {
    Weights w = {0};
    if (p->expands) {
        w.expand = take(workspace, used, p->inputs / p->pairs * p->group);
        if (back)
            w.expand_back = take(workspace, used, p->group / p->pairs * rounded(p->inputs));
    }
    w.filters = take(workspace, used, p->kernel * p->kernel * p->group);
    if (back)
        w.project_back = take(workspace, used, p->outputs / p->pairs * p->group);
    else
        w.project = take(workspace, used, p->group / p->pairs * rounded(p->outputs));
    return w;
}

/* The weights as Python passes them */
typedef struct {
    const float *expand; /* (inner, inputs) */
    const float *expand_bias;
    const float *filters; /* (inner, kernel * kernel) */
    const float *filter_bias;
    const float *project; /* (outputs, inner) */
    const float *project_bias;
} Given;

/* to (columns, rows) = from (rows, columns), `step` floats between rows */
static void transpose(const float *from, ptrdiff_t step, ptrdiff_t rows, ptrdiff_t columns,
                      float *to) {
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < columns; c++) to[c * rows + r] = from[r * step + c];
}

static void pack_blocks(const Block *p, const Work *work, const float *from, ptrdiff_t columns,
                        float *to) {
    const ptrdiff_t width = rounded(columns);
    for (ptrdiff_t c = 0; c < width;) {
        const ptrdiff_t left = width - c, some = left == 64 ? 32 : smaller(left, 48);
        work->pack(from + c, columns, p->group, smaller(some, columns - c), some, to);
        to += p->group / p->pairs * some;
        c += some;
    }
}

static void pack_group(const Block *p, const Work *work, const Given *given, ptrdiff_t g,
                       Weights *w, float *scratch) {
    const ptrdiff_t first = g * p->group, group = p->group, taps = p->kernel * p->kernel;
    if (p->expands) {
        const float *own = given->expand + first * p->inputs;
        w->expand_bias = given->expand_bias + first;
        transpose(own, p->inputs, group, p->inputs, scratch);
        work->pack(scratch, group, p->inputs, group, group, w->expand);
        if (w->expand_back != NULL) pack_blocks(p, work, own, p->inputs, w->expand_back);
    }
    w->filter_bias = given->filter_bias + first;
    transpose(given->filters + first * taps, taps, group, taps, w->filters);
    const float *own = given->project + first;
    if (w->project_back != NULL) {
        work->pack(own, p->inner, p->outputs, group, group, w->project_back);
    } else {
        transpose(own, p->inner, p->outputs, group, scratch);
        pack_blocks(p, work, scratch, p->outputs, w->project);
    }
}

static Gradients unit_gradients(const Block *p, float *workspace, ptrdiff_t *used) {
    Gradients sums = {0};
    if (p->expands) {
        sums.expand = take(workspace, used, p->inner * p->inputs);
        sums.expand_bias = take(workspace, used, p->inner);
    }
    sums.filters = take(workspace, used, p->inner * p->kernel * p->kernel);
    sums.filter_bias = take(workspace, used, p->inner);
    sums.project = take(workspace, used, p->inner * p->outputs);
    sums.project_bias = take(workspace, used, p->outputs);
    return sums;
}

typedef struct {
    Weights *weights;
    float *gradients; /* of the units, `step` floats each */
    float *memory;    /* of the threads */
    ptrdiff_t step, thread_step, total;
} Layout;

static Layout layout(const Block *p, int back, int threads, float *workspace) {
    Layout found = {0};
    ptrdiff_t used = 0, step = 0;
    const ptrdiff_t floats = (ptrdiff_t)(sizeof(Weights) / sizeof(float));
    found.weights = (Weights *)(void *)take(workspace, &used, p->groups * floats);
    for (ptrdiff_t g = 0; g < p->groups; g++) {
        const Weights w = group_weights(p, back, workspace, &used);
        if (workspace != NULL) found.weights[g] = w;
    }
    if (back) unit_gradients(p, NULL, &found.step);
    found.gradients = take(workspace, &used, found.step * p->units);
    thread_memory(p, back, NULL, &step);
    found.thread_step = step;
    found.memory = take(workspace, &used, step * threads);
    found.total = used;
    return found;
}

/* Floats of the workspace of inverted_residual_forward or, with `back`, _backward */
EXPORT ptrdiff_t inverted_residual_space(const ptrdiff_t *shape, int back, int version,
                                         int threads) {
    const Block p = plan(shape, version);
    return layout(&p, back, threads, NULL).total;
}

static int this_thread(void) {
#if defined(_OPENMP)
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* out (images, out_height, out_width, outputs) = the block of x (images, height, width, inputs) */
EXPORT void inverted_residual_forward(const ptrdiff_t *shape, const float *x, const Given *given,
                                      float *out, float *workspace, int version, int threads) {
    const Block p = plan(shape, version);
    const Work *work = inverted_residual_work(version);
    const Layout place = layout(&p, 0, threads, workspace);
#pragma omp parallel num_threads(threads)
    {
        ptrdiff_t used = this_thread() * place.thread_step;
        const Memory m = thread_memory(&p, 0, place.memory, &used);
        prepare(&p, &m, 0);
#pragma omp for schedule(static)
        for (ptrdiff_t g = 0; g < p.groups; g++)
            pack_group(&p, work, given, g, place.weights + g, m.scratch);
#pragma omp for schedule(static)
        for (ptrdiff_t u = 0; u < p.units; u++) {
            const ptrdiff_t first = u * p.unit;
            work->forward(&p, smaller(p.unit, p.images - first),
                          x + first * p.height * p.width * p.inputs, place.weights,
                          given->project_bias,
                          out + first * p.out_height * p.out_width * p.outputs, &m);
        }
    }
}

/* to (columns, rows) = the sum over the units of from (rows, columns) of group g */
static void add_units(const Block *p, const Layout *place, const float *from, ptrdiff_t rows,
                      ptrdiff_t g, int transposed, float *to, ptrdiff_t row_step) {
    const ptrdiff_t offset = g * rows * p->group;
    for (ptrdiff_t r = 0; r < rows; r++) {
        double total[48] = {0};
        for (ptrdiff_t u = 0; u < p->units; u++) {
            const float *sums = from + u * place->step + offset + r * p->group;
            for (ptrdiff_t c = 0; c < p->group; c++) total[c] += sums[c];
        }
        for (ptrdiff_t c = 0; c < p->group; c++)
            to[transposed ? (g * p->group + c) * row_step + r : r * row_step + g * p->group + c] =
                (float)total[c];
    }
}

/* The gradients, of the shapes of the weights */
typedef struct {
    float *expand, *expand_bias, *filters, *filter_bias, *project, *project_bias;
} Result;

/* Gradients of x (not computed if NULL) and of the weights, from that of the block's output */
EXPORT void inverted_residual_backward(const ptrdiff_t *shape, const float *x, const Given *given,
                                       const float *grad, float *grad_x, const Result *result,
                                       float *workspace, int version, int threads) {
    const Block p = plan(shape, version);
    const Work *work = inverted_residual_work(version);
    const Layout place = layout(&p, 1, threads, workspace);
    const ptrdiff_t taps = p.kernel * p.kernel, out_pixels = p.out_height * p.out_width;
    ptrdiff_t none = 0;
    const Gradients first_unit = unit_gradients(&p, place.gradients, &none);
#pragma omp parallel num_threads(threads)
    {
        ptrdiff_t used = this_thread() * place.thread_step;
        const Memory m = thread_memory(&p, 1, place.memory, &used);
        prepare(&p, &m, 1);
#pragma omp for schedule(static)
        for (ptrdiff_t g = 0; g < p.groups; g++)
            pack_group(&p, work, given, g, place.weights + g, m.scratch);
#pragma omp for schedule(static)
        for (ptrdiff_t u = 0; u < p.units; u++) {
            const ptrdiff_t first = u * p.unit;
            float *own = place.gradients + u * place.step;
            ptrdiff_t at = 0;
            memset(own, 0, (size_t)place.step * sizeof(float));
            const Gradients sums = unit_gradients(&p, own, &at);
            const ptrdiff_t offset = first * p.height * p.width * p.inputs;
            work->backward(&p, smaller(p.unit, p.images - first), x + offset, place.weights,
                           grad + first * out_pixels * p.outputs,
                           grad_x == NULL ? NULL : grad_x + offset, &sums, &m);
        }
#pragma omp for schedule(static)
        for (ptrdiff_t g = 0; g < p.groups; g++) {
            if (p.expands) {
                add_units(&p, &place, first_unit.expand, p.inputs, g, 1, result->expand, p.inputs);
                add_units(&p, &place, first_unit.expand_bias, 1, g, 0, result->expand_bias, 0);
            }
            add_units(&p, &place, first_unit.filters, taps, g, 1, result->filters, taps);
            add_units(&p, &place, first_unit.filter_bias, 1, g, 0, result->filter_bias, 0);
            add_units(&p, &place, first_unit.project, p.outputs, g, 0, result->project, p.inner);
        }
    }
    for (ptrdiff_t c = 0; c < p.outputs; c++) {
        double total = 0.0;
        for (ptrdiff_t u = 0; u < p.units; u++)
            total += first_unit.project_bias[u * place.step + c];
        result->project_bias[c] = (float)total;
    }
}

#else

EXPORT int has_inverted_residual(void) { return 0; }
EXPORT void inverted_residual_space(void) {}
EXPORT void inverted_residual_forward(void) {}
EXPORT void inverted_residual_backward(void) {}

#endif
