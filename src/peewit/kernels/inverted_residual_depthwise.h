/* The depthwise convolution of one strip, forward and backward: part of inverted_residual_work.h. */
/* Sums of `count` neighbouring pixels of one row of the depthwise convolution, one vector of
 * channels. x is padded, `row` floats between its rows and `pixel` between its pixels. If `apart` is
 * 2, only every second row and column of x is not zero, beginning with those of number `first_row`
 * and `first_column`, and only these are read. */
ALWAYS void filter(const int count, const int kernel, const int stride, const int apart,
                   int first_row, const int first_column, const float *x, ptrdiff_t row,
                   ptrdiff_t pixel, const float *w, ptrdiff_t w_step, Vector *sum) {
    UNROLL for (int t = 0; t < count; t++) sum[t] = (Vector){0};
    for (int i = first_row; i < kernel; i += apart) {
        const float *from = x + i * row;
        Vector weight[5];
        UNROLL for (int j = 0; j < kernel; j++) weight[j] = load(w + (i * kernel + j) * w_step);
        UNROLL for (int k = 0; k < (count - 1) * stride + kernel; k++, from += pixel) {
            if (apart == 2 && (k + first_column) % 2) continue;
            const Vector value = load(from);
            UNROLL for (int t = 0; t < count; t++) {
                const int j = k - t * stride;
                if (0 <= j && j < kernel) sum[t] += value * weight[j];
            }
        }
    }
}

/* How results of the depthwise convolution are stored: as float32, or rounded to bfloat16 as a
 * left-hand operand of products (pairs of channels) or a right-hand one (pairs of pixels) */
enum { WHOLE = 1, ROWS = 2, COLUMNS = 4 };

typedef struct {
    float *whole;   /* `step` floats between the pixels */
    ptrdiff_t step;
    float *rows, *columns;
} Target;

/* Store the vectors at channel c of `count` pixels, an even number from an even one for COLUMNS */
ALWAYS void emit(const int count, const int form, const Vector *value, const Target *to,
                 ptrdiff_t group, ptrdiff_t pixel, ptrdiff_t c) {
    if (form & WHOLE)
        UNROLL for (int t = 0; t < count; t++)
            store(to->whole + (pixel + t) * to->step + c, value[t]);
#if defined(BFLOAT16)
    if (form & ROWS)
        UNROLL for (int t = 0; t < count; t++)
            store_rounded(to->rows + ((pixel + t) * group + c) / 2, value[t]);
    if (form & COLUMNS)
        UNROLL for (int t = 0; t + 1 < count; t += 2)
            store(to->columns + (pixel + t) / 2 * group + c, pair(value[t], value[t + 1]));
#else
    (void)group;
#endif
}

/* Rows of a unit's images that are computed together. In the numbering of the padded rows, the
 * window of `inner` and `spread` begins at row first * stride. */
typedef struct {
    ptrdiff_t images;
    ptrdiff_t first, count; /* rows of the output */
    ptrdiff_t from, to;     /* rows of the input whose gradient is complete */
    ptrdiff_t skip;         /* padded row of `from` within the window */
} Strip;

/* Pixels computed at once: pairs need an even number, and so does a gradient with stride 2 */
ALWAYS int at_once(const int stride, const int form) {
    if (LANES < 16) return 4;
    return stride == 2 || (form & COLUMNS) ? 8 : 7;
}

/* The depthwise convolution of `inner`, with bias and ReLU6 */
ALWAYS void depthwise(const int kernel, const int stride, const int form, const Block *p,
                      const Strip *s, const Weights *weights, const Memory *m, const Target *to) {
    const ptrdiff_t group = p->group, row = p->columns * group, image = p->rows * row;
    const int most = at_once(1, form);
    for (ptrdiff_t n = 0; n < s->images; n++)
        for (ptrdiff_t i = 0; i < s->count; i++)
            for (ptrdiff_t c = 0; c < group; c += LANES) {
                const float *x = m->inner + n * image + i * stride * row + c;
                const float *w = weights->filters + c;
                const Vector bias = load(weights->filter_bias + c);
                const ptrdiff_t pixel = (n * s->count + i) * p->out_width;
                ptrdiff_t j = 0;
#define STEP(COUNT)                                                                               \
    for (; j + COUNT <= p->out_width; j += COUNT) {                                               \
        Vector sum[8];                                                                            \
        filter(COUNT, kernel, stride, 1, 0, 0, x + j * stride * group, row, group, w, group, sum); \
        UNROLL for (int t = 0; t < COUNT; t++) sum[t] = relu6(sum[t] + bias);                     \
        emit(COUNT, form, sum, to, group, pixel + j, c);                                          \
    }
                STEP(most)
                STEP(4)
                STEP(2)
                STEP(1)
#undef STEP
            }
}

/* The transposed depthwise convolution of `spread`, masked by `inner` if the block expands;
 * bias_sum += its sums over the pixels */
ALWAYS void depthwise_back(const int kernel, const int stride, const int first_column,
                           const int form, const Block *p, const Strip *s, const Weights *weights,
                           const Memory *m, const Target *to, float *bias_sum) {
    const ptrdiff_t group = p->group, row = p->columns * group, image = p->rows * row;
    const ptrdiff_t rows = s->to - s->from;
    const int most = at_once(stride, form);
    for (ptrdiff_t n = 0; n < s->images; n++)
        for (ptrdiff_t i = 0; i < rows; i++)
            for (ptrdiff_t c = 0; c < group; c += LANES) {
                const ptrdiff_t at = s->skip + i;
                const float *from = m->spread + n * image + at * row + c;
                const float *mask = m->inner + n * image + at * row + p->left * group + c;
                /* the filters rotated by 180 degrees */
                const float *w = weights->filters + (kernel * kernel - 1) * group + c;
                const int first_row = stride == 1 ? 0 : (int)(at % 2);
                const ptrdiff_t pixel = (n * rows + i) * p->width;
                Vector total = {0};
                ptrdiff_t j = 0;
#define STEP(COUNT)                                                                            \
    for (; j + COUNT <= p->width; j += COUNT) {                                                \
        Vector sum[8];                                                                         \
        filter(COUNT, kernel, 1, stride, first_row, first_column, from + j * group, row, group, \
               w, -group, sum);                                                                \
        UNROLL for (int t = 0; t < COUNT; t++) {                                               \
            if (p->expands) sum[t] = passes(sum[t], load(mask + (j + t) * group));             \
            total += sum[t];                                                                   \
        }                                                                                      \
        emit(COUNT, form, sum, to, group, pixel + j, c);                                       \
    }
                STEP(most)
                STEP(4)
                STEP(2)
                STEP(1)
#undef STEP
                store(bias_sum + c, load(bias_sum + c) + total);
            }
}

/* sums (kernel * kernel, group) += gradient of the filters, bias_sum += sums of the gradient;
 * `taps` rows of the filters at once */
ALWAYS void depthwise_weights(const int kernel, const int stride, const int taps, const Block *p,
                              const Strip *s, const Memory *m, float *sums, float *bias_sum) {
    const ptrdiff_t group = p->group, row = p->columns * group, image = p->rows * row;
    const ptrdiff_t corner = (kernel - 1) * row + (kernel - 1 - p->left) * group;
    for (ptrdiff_t c = 0; c < group; c += LANES)
        for (int first = 0; first < kernel; first += taps)
            for (ptrdiff_t n = 0; n < s->images; n++) {
                Vector sum[25], total = {0};
                for (int t = 0; t < taps * kernel; t++) sum[t] = (Vector){0};
                for (ptrdiff_t i = 0; i < s->count; i++) {
                    const float *x = m->inner + n * image + (i * stride + first) * row + c;
                    const float *g = m->spread + n * image + corner + i * stride * row + c;
                    for (ptrdiff_t j = 0; j < p->out_width; j++) {
                        const Vector grad = load(g + j * stride * group);
                        total += grad;
                        for (int a = 0; a < taps; a++)
                            for (int b = 0; b < kernel; b++)
                                sum[a * kernel + b] +=
                                    load(x + a * row + (j * stride + b) * group) * grad;
                    }
                }
                for (int t = 0; t < taps * kernel; t++) {
                    float *at = sums + (first * kernel + t) * group + c;
                    store(at, load(at) + sum[t]);
                }
                if (first == 0) store(bias_sum + c, load(bias_sum + c) + total);
            }
}

#define AT_ONCE(KERNEL) (LANES == 16 ? KERNEL : KERNEL == 3 ? 3 : 1)

/* The compiled variants */
#define VARIANT(KERNEL, STRIDE)                                                                   \
    static void depthwise##KERNEL##STRIDE(const Block *p, const Strip *s, const Weights *w,       \
                                          const Memory *m, const Target *to, int form) {          \
        if (PAIRS == 2 && form == ROWS)                                                           \
            depthwise(KERNEL, STRIDE, ROWS, p, s, w, m, to);                                      \
        else if (PAIRS == 2 && form == (WHOLE | COLUMNS))                                         \
            depthwise(KERNEL, STRIDE, WHOLE | COLUMNS, p, s, w, m, to);                           \
        else                                                                                      \
            depthwise(KERNEL, STRIDE, WHOLE, p, s, w, m, to);                                     \
    }                                                                                             \
    static void depthwise_weights##KERNEL##STRIDE(const Block *p, const Strip *s, const Memory *m, \
                                                  float *sums, float *bias_sum) {                 \
        depthwise_weights(KERNEL, STRIDE, AT_ONCE(KERNEL), p, s, m, sums, bias_sum);              \
    }                                                                                             \
    static void depthwise_back##KERNEL##STRIDE(const Block *p, const Strip *s, const Weights *w,  \
                                               const Memory *m, const Target *to, int form,       \
                                               float *sum) {                                      \
        const int odd = (KERNEL - 1 - p->left) % 2 != 0;                                          \
        if (PAIRS == 2 && form != WHOLE && odd)                                                   \
            depthwise_back(KERNEL, STRIDE, 1, ROWS | COLUMNS, p, s, w, m, to, sum);               \
        else if (PAIRS == 2 && form != WHOLE)                                                     \
            depthwise_back(KERNEL, STRIDE, 0, ROWS | COLUMNS, p, s, w, m, to, sum);               \
        else if (odd)                                                                             \
            depthwise_back(KERNEL, STRIDE, 1, WHOLE, p, s, w, m, to, sum);                        \
        else                                                                                      \
            depthwise_back(KERNEL, STRIDE, 0, WHOLE, p, s, w, m, to, sum);                        \
    }
VARIANT(3, 1)
VARIANT(3, 2)
VARIANT(5, 1)
VARIANT(5, 2)
#undef VARIANT
#define CALL(FUNCTION, ...)                                                       \
    (p->kernel == 3 ? (p->stride == 1 ? FUNCTION##31 : FUNCTION##32)              \
                    : (p->stride == 1 ? FUNCTION##51 : FUNCTION##52))(__VA_ARGS__)
