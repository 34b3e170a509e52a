/* The first convolution, of one image: part of inverted_residual_work.h. Each row of the output is a
 * matrix product of the input's patches, (out_width, depth), and the filters, (depth, outputs). */

ALWAYS void copy_pixels(const int length, const float *from, ptrdiff_t step, ptrdiff_t count,
                        ptrdiff_t depth, float *to) {
    for (ptrdiff_t j = 0; j < count; j++)
        memcpy(to + j * depth, from + j * step, (size_t)length * sizeof(float));
}

/* patches (out_width, depth) of row i of the output; zero outside of the image, and where `depth` is
 * more than kernel * kernel * inputs */
static void fill_patches(const First *p, const float *x, ptrdiff_t i, float *patches) {
    const ptrdiff_t length = p->kernel * p->inputs, step = p->stride * p->inputs;
    memset(patches, 0, (size_t)(p->out_width * p->depth) * sizeof(float));
    /* columns of the output whose patches are within the image */
    const ptrdiff_t before = (p->left + p->stride - 1) / p->stride;
    const ptrdiff_t last = p->width - p->kernel + p->left;
    const ptrdiff_t after = last < 0 ? 0 : last / p->stride + 1;
    for (ptrdiff_t k = 0; k < p->kernel; k++) {
        const ptrdiff_t y = i * p->stride - p->top + k;
        if (y < 0 || y >= p->height) continue;
        const float *row = x + y * p->width * p->inputs;
        float *to = patches + k * length;
        for (ptrdiff_t j = 0; j < p->out_width; j++) {
            if (j == before && after > before) {
                const float *from = row + j * step - p->left * p->inputs;
                if (length == 9)
                    copy_pixels(9, from, step, after - j, p->depth, to + j * p->depth);
                else
                    copy_pixels((int)length, from, step, after - j, p->depth, to + j * p->depth);
                j = after - 1;
                continue;
            }
            for (ptrdiff_t b = 0; b < p->kernel; b++) {
                const ptrdiff_t column = j * p->stride - p->left + b;
                if (column >= 0 && column < p->width)
                    memcpy(to + j * p->depth + b * p->inputs, row + column * p->inputs,
                           (size_t)p->inputs * sizeof(float));
            }
        }
    }
}

static void first_forward(const First *p, const float *x, const float *filters, const float *bias,
                          float *out, const FirstMemory *m) {
    for (ptrdiff_t i = 0; i < p->out_height; i++) {
        fill_patches(p, x, i, m->patches);
        const float *rows = as_rows(m->patches, p->out_width * p->depth, m->operand);
        const Result to = {out + i * p->out_width * p->outputs, p->outputs, m->place, bias, NULL};
        product_activate(p->out_width, p->depth / PAIRS, rows, filters, p->outputs, &to);
    }
}

/* sums (depth, outputs) and bias_sum (outputs) += the gradients of filters and bias */
static void first_backward(const First *p, const float *x, const float *out, const float *grad,
                           float *sums, float *bias_sum, const FirstMemory *m) {
    const ptrdiff_t row = p->out_width * p->outputs, pairs = (p->out_width + PAIRS - 1) / PAIRS;
    const Result to = {sums, p->outputs, NULL, NULL, NULL};
    for (ptrdiff_t i = 0; i < p->out_height; i++) {
        for (ptrdiff_t c = 0; c < p->outputs; c += LANES) {
            Vector total = {0};
            for (ptrdiff_t j = c; j < row; j += p->outputs) {
                const Vector own = passes(load(grad + i * row + j), load(out + i * row + j));
                store(m->masked + j, own);
                total += own;
            }
            store(bias_sum + c, load(bias_sum + c) + total);
        }
        fill_patches(p, x, i, m->patches);
        product_add(p->depth, pairs, as_columns(m->patches, p->out_width, p->depth, m->operand), 1,
                    p->depth, as_columns(m->masked, p->out_width, p->outputs, m->columns),
                    p->outputs, &to);
    }
}
