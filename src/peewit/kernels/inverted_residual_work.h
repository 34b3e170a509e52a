/* The work on one unit of images, compiled for each type of processor: a file that includes this
 * defines WORK, the name of the resulting functions, and LANES, the floats of a vector.
 *
 * With BFLOAT16 the operands of the matrix products are pairs of bfloat16, adjacent in the product's
 * depth, in the place of floats; the sums are float32.
 */
#include "inverted_residual.h"

#include <string.h>

#include "inverted_residual_products.h"
#include "inverted_residual_depthwise.h"
#include "first_convolution_work.h"

/* The next strip of p->strip rows of the output; s->images is 0 at the end */
static void next_strip(const Block *p, ptrdiff_t images, Strip *s) {
    s->first = s->images ? s->first + s->count : 0;
    s->images = s->first < p->out_height ? images : 0;
    const ptrdiff_t left = p->out_height - s->first;
    s->count = left < p->strip ? left : p->strip;
    const ptrdiff_t begin = s->first * p->stride, end = begin + s->count * p->stride;
    s->from = begin < p->top ? 0 : begin - p->top;
    s->to = left <= p->strip ? p->height : end - p->top;
    s->skip = s->from + p->top - begin;
}

/* Move the window of `inner` to a strip and fill it: with the expanded pixels of group g, or with a
 * copy of the input's channels. The rows above have been computed for the strip before. */
static void fill_inner(const Block *p, const Strip *s, const float *x, const float *x_rows,
                       const Weights *w, ptrdiff_t g, const Memory *m) {
    const ptrdiff_t row = p->columns * p->group, overlap = p->kernel - p->stride;
    const ptrdiff_t begin = s->first * p->stride - p->top; /* row of the input */
    ptrdiff_t from = 0, to = begin + (s->count - 1) * p->stride + p->kernel;
    if (s->first == 0) {
        memset(m->inner, 0, (size_t)(p->top * row) * sizeof(float));
    } else {
        memmove(m->inner, m->inner + p->strip * p->stride * row,
                (size_t)(overlap * row) * sizeof(float));
        from = begin + overlap;
    }
    if (to < s->to) to = s->to;
    if (to > p->height) {
        if (p->strip < p->out_height)
            memset(m->inner + (p->height - begin) * row, 0,
                   (size_t)((to - p->height) * row) * sizeof(float));
        to = p->height;
    }
    if (from > to) from = to;
    const ptrdiff_t pixels = (s->images - 1) * p->height * p->width + (to - from) * p->width;
    const ptrdiff_t first = from * p->width;
    float *inner = m->inner + (from - begin) * row;
    if (p->expands) {
        const Result result = {inner, p->group, m->inner_place, w->expand_bias, NULL};
        const ptrdiff_t depth = p->inputs / PAIRS;
        product_activate(pixels, depth, x_rows + first * depth, w->expand, p->group, &result);
        return;
    }
    for (ptrdiff_t i = 0; i < pixels; i++)
        memcpy(inner + m->inner_place[i] * p->group, x + (first + i) * p->inputs + g * p->group,
               (size_t)p->group * sizeof(float));
}

/* Move the window of `spread` to a strip, and clear the rows that the strip does not set */
static void move_spread(const Block *p, const Strip *s, const Memory *m) {
    const ptrdiff_t row = p->columns * p->group, kept = p->kernel - 1;
    const size_t bytes = (size_t)(kept * row) * sizeof(float);
    if (s->first == 0)
        memset(m->spread, 0, bytes);
    else
        memmove(m->spread, m->spread + p->strip * p->stride * row, bytes);
    for (ptrdiff_t i = s->count; i < p->strip; i++)
        memset(m->spread + (kept + i * p->stride) * row, 0, (size_t)row * sizeof(float));
}

static void forward(const Block *p, ptrdiff_t images, const float *x, const Weights *weights,
                    const float *bias, float *out, const Memory *m) {
    const ptrdiff_t pixels = images * p->height * p->width;
    const ptrdiff_t out_pixels = images * p->out_height * p->out_width;
    const ptrdiff_t step = rounded(p->outputs);
    const float *x_rows = p->expands ? as_rows(x, pixels * p->inputs, m->x_rows) : NULL;
    const Target to = {m->filtered, p->group, m->rows, NULL};
    for (ptrdiff_t g = 0; g < p->groups; g++) {
        Strip s = {0};
        for (next_strip(p, images, &s); s.images; next_strip(p, images, &s)) {
            const ptrdiff_t some = images * s.count * p->out_width;
            fill_inner(p, &s, x, x_rows, weights + g, g, m);
            CALL(depthwise, p, &s, weights + g, m, &to, PAIRS == 2 ? ROWS : WHOLE);
            accumulate(p, some, PAIRS == 2 ? m->rows : m->filtered, weights[g].project, p->outputs,
                       g == 0, m->sums + s.first * p->out_width * step);
        }
    }
    for (ptrdiff_t i = 0; i < out_pixels; i++) {
        const float *from = m->sums + i * step, *input = x + i * p->inputs;
        float *to = out + i * p->outputs;
        if (p->residual)
            for (ptrdiff_t c = 0; c < p->outputs; c++) to[c] = from[c] + bias[c] + input[c];
        else
            for (ptrdiff_t c = 0; c < p->outputs; c++) to[c] = from[c] + bias[c];
    }
}

/* Operands of the products of the backward pass: pixels are rows, or columns */
typedef struct {
    const float *x_rows, *x_columns, *grad_rows, *grad_columns;
} Operands;

static void strip_backward(const Block *p, const Strip *s, const float *x, const Operands *o,
                           const Weights *w, ptrdiff_t g, float *grad_x, const Gradients *sums,
                           const Memory *m) {
    const ptrdiff_t group = p->group, taps = p->kernel * p->kernel;
    const ptrdiff_t some = s->images * s->count * p->out_width, start = s->first * p->out_width;
    fill_inner(p, s, x, o->x_rows, w, g, m);
    const int paired = PAIRS == 2 && p->out_width % 2 == 0;
    const Target to_filtered = {m->filtered, group, NULL, m->columns};
    CALL(depthwise, p, s, w, m, &to_filtered, paired ? WHOLE | COLUMNS : WHOLE);
    move_spread(p, s, m);
    const Result to_spread = {m->spread + (p->kernel - 1) * p->columns * group, group,
                              m->spread_place, NULL, m->filtered};
    product_mask(some, p->outputs / PAIRS, o->grad_rows + start * (p->outputs / PAIRS),
                 w->project_back,
           group, &to_spread);
    const Result to_project = {sums->project + g * p->outputs * group, group, NULL, NULL, NULL};
    product_add(p->outputs, (some + PAIRS - 1) / PAIRS, o->grad_columns + start / PAIRS * p->outputs,
                1,
        p->outputs, as_columns(m->filtered, some, group, m->columns), group, &to_project);
    CALL(depthwise_weights, p, s, m, sums->filters + g * taps * group,
         sums->filter_bias + g * group);
    const ptrdiff_t pixels = s->images * (s->to - s->from) * p->width, first = s->from * p->width;
    if (!p->expands) {
        float unused[MOST] = {0};
        if (grad_x == NULL) return;
        const Target to = {grad_x + first * p->inputs + g * group, p->inputs, NULL, NULL};
        CALL(depthwise_back, p, s, w, m, &to, WHOLE, unused);
        return;
    }
    const Target to_inner = {m->grad_inner, group, m->rows, m->columns};
    const int both = PAIRS == 2 && p->width % 2 == 0;
    CALL(depthwise_back, p, s, w, m, &to_inner, both ? ROWS | COLUMNS : WHOLE,
         sums->expand_bias + g * group);
    const float *columns =
        both ? m->columns : as_columns(m->grad_inner, pixels, group, m->columns);
    const Result to_expand = {sums->expand + g * p->inputs * group, group, NULL, NULL, NULL};
    product_add(p->inputs, (pixels + PAIRS - 1) / PAIRS, o->x_columns + first / PAIRS * p->inputs,
                1, p->inputs, columns, group, &to_expand);
    if (grad_x == NULL) return;
    const float *rows = both ? m->rows : as_rows(m->grad_inner, pixels * group, m->rows);
    accumulate(p, pixels, rows, w->expand_back, p->inputs, g == 0,
               m->sums + first * rounded(p->inputs));
}

static void backward(const Block *p, ptrdiff_t images, const float *x, const Weights *weights,
                     const float *grad, float *grad_x, const Gradients *sums, const Memory *m) {
    const ptrdiff_t pixels = images * p->height * p->width;
    const ptrdiff_t out_pixels = images * p->out_height * p->out_width;
    Operands o = {0};
    if (p->expands) {
        o.x_rows = as_rows(x, pixels * p->inputs, m->x_rows);
        o.x_columns = as_columns(x, pixels, p->inputs, m->x_columns);
    }
    for (ptrdiff_t i = 0; i < out_pixels; i++)
        for (ptrdiff_t c = 0; c < p->outputs; c++)
            sums->project_bias[c] += grad[i * p->outputs + c];
    o.grad_rows = as_rows(grad, out_pixels * p->outputs, m->grad_rows);
    o.grad_columns = as_columns(grad, out_pixels, p->outputs, m->grad_columns);
    for (ptrdiff_t g = 0; g < p->groups; g++) {
        Strip s = {0};
        for (next_strip(p, images, &s); s.images; next_strip(p, images, &s))
            strip_backward(p, &s, x, &o, weights + g, g, grad_x, sums, m);
    }
    if (grad_x == NULL) return;
    const ptrdiff_t step = rounded(p->inputs);
    for (ptrdiff_t i = 0; i < pixels; i++) {
        float *to = grad_x + i * p->inputs;
        const float *from = m->sums + i * step, *direct = grad + i * p->outputs;
        if (p->expands) memcpy(to, from, (size_t)p->inputs * sizeof(float));
        if (p->residual)
            for (ptrdiff_t c = 0; c < p->inputs; c++) to[c] += direct[c];
    }
}

const Work WORK = {pack, forward, backward, first_forward, first_backward};
