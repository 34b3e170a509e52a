/* The work on one unit of images, compiled for each type of processor: a file that includes this
 * defines WORK, the name of the resulting functions, and LANES, the floats of a vector.
 *
 * With BFLOAT16 the operands of the matrix products are pairs of bfloat16, adjacent in the product's
 * depth, in the place of floats; the sums are float32.
 */
#include "inverted_residual.h"

#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
#define MOST 48 /* columns of a product's block */
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Bits __attribute__((vector_size(LANES * 4)));

/* Sums that fit into the registers: 8 x 48 or 12 x 32 take 24 of the 32 registers of AVX-512, 6 x
 * 16 take 12 of the 16 of AVX2. */
#if LANES == 16
#define VECTORS 3
#else
#define VECTORS 2
#endif

ALWAYS Vector load(const float *from) { return *(const Vector *)from; }
ALWAYS void store(float *to, Vector value) { *(Vector *)to = value; }
#if defined(BFLOAT16)
#define PAIRS 2
ALWAYS Vector multiply_add(Vector sum, float a, Vector b) {
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(a), (__m512bh)b);
}
#else
#define PAIRS 1
ALWAYS Vector multiply_add(Vector sum, float a, Vector b) { return sum + a * b; }
#endif

/* NaN stays NaN, so that a failed training is noticed; `passes` is the gradient of ReLU6 for the
 * output y */
#if LANES == 16
ALWAYS Vector relu6(Vector x) {
    /* these return their second operand if one is NaN */
    const __m512 above = _mm512_max_ps(_mm512_setzero_ps(), (__m512)x);
    return (Vector)_mm512_min_ps(_mm512_set1_ps(6.0f), above);
}

ALWAYS Vector passes(Vector grad, Vector y) {
    const __mmask16 above = _mm512_cmp_ps_mask((__m512)y, _mm512_setzero_ps(), _CMP_GT_OQ);
    const __mmask16 both =
        _mm512_mask_cmp_ps_mask(above, (__m512)y, _mm512_set1_ps(6.0f), _CMP_LT_OQ);
    return (Vector)_mm512_maskz_mov_ps(both, (__m512)grad);
}
#else
ALWAYS Vector where(Bits condition, Vector value) {
    return (Vector)((Bits)value & condition);
}

ALWAYS Vector relu6(Vector x) {
    const Vector six = (Vector){0} + 6.0f;
    x = where(~(x < 0.0f), x);
    const Bits above = x > six;
    return (Vector)(((Bits)x & ~above) | ((Bits)six & above));
}

ALWAYS Vector passes(Vector grad, Vector y) { return where((y > 0.0f) & (y < 6.0f), grad); }
#endif

/* What happens to the sums of a product */
enum { SET, ADD, ACTIVATE, MASK };

typedef struct {
    float *c;
    ptrdiff_t step;       /* floats between rows; between pixels if there is `place` */
    const int32_t *place; /* ACTIVATE, MASK: the pixel of each row in c */
    const float *bias;    /* ACTIVATE */
    const float *mask;    /* MASK: outputs of ReLU6, `step` floats between rows */
} Result;

/* rows x vecs vectors of sums of a (rows, depth) b (depth, columns) */
ALWAYS void tile(const int what, const int rows, const int vecs, ptrdiff_t depth, const float *a,
                 ptrdiff_t row_step, ptrdiff_t depth_step, const float *b, ptrdiff_t b_step,
                 const Result *to, ptrdiff_t row, ptrdiff_t column) {
    Vector sum[12][VECTORS];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vecs; v++)
            sum[r][v] = what == ADD ? load(to->c + (row + r) * to->step + column + v * LANES)
                        : what == ACTIVATE ? load(to->bias + column + v * LANES)
                                           : (Vector){0};
    a += row * row_step;
    b += column;
    for (ptrdiff_t k = 0; k < depth; k++) {
        Vector right[VECTORS];
        UNROLL for (int v = 0; v < vecs; v++) right[v] = load(b + v * LANES);
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int v = 0; v < vecs; v++)
                sum[r][v] = multiply_add(sum[r][v], a[r * row_step], right[v]);
        a += depth_step;
        b += b_step;
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vecs; v++) {
            const ptrdiff_t at = column + v * LANES;
            if (what == ACTIVATE)
                store(to->c + to->place[row + r] * to->step + at, relu6(sum[r][v]));
            else if (what == MASK)
                store(to->c + to->place[row + r] * to->step + at,
                      passes(sum[r][v], load(to->mask + (row + r) * to->step + at)));
            else
                store(to->c + (row + r) * to->step + at, sum[r][v]);
        }
}

ALWAYS void all_rows(const int what, const int most, const int vecs, ptrdiff_t rows,
                     ptrdiff_t depth, const float *a, ptrdiff_t row_step, ptrdiff_t depth_step,
                     const float *b, ptrdiff_t b_step, const Result *to, ptrdiff_t column) {
    ptrdiff_t r = 0;
    for (; r + most <= rows; r += most)
        tile(what, most, vecs, depth, a, row_step, depth_step, b, b_step, to, r, column);
    for (; r + 4 <= rows; r += 4)
        tile(what, 4, vecs, depth, a, row_step, depth_step, b, b_step, to, r, column);
    for (; r < rows; r++)
        tile(what, 1, vecs, depth, a, row_step, depth_step, b, b_step, to, r, column);
}

/* a (rows, depth) b (depth, width), width 16, 32 or 48 */
ALWAYS void product(const int what, ptrdiff_t rows, ptrdiff_t depth, const float *a,
                    ptrdiff_t row_step, ptrdiff_t depth_step, const float *b, ptrdiff_t width,
                    const Result *to) {
#if LANES == 16
    if (width == 48)
        all_rows(what, 8, 3, rows, depth, a, row_step, depth_step, b, 48, to, 0);
    else if (width == 32)
        all_rows(what, 12, 2, rows, depth, a, row_step, depth_step, b, 32, to, 0);
    else
        all_rows(what, 12, 1, rows, depth, a, row_step, depth_step, b, 16, to, 0);
#else
    for (ptrdiff_t column = 0; column < width; column += 2 * LANES)
        all_rows(what, 6, 2, rows, depth, a, row_step, depth_step, b, width, to, column);
#endif
}

static void product_activate(ptrdiff_t rows, ptrdiff_t depth, const float *a, const float *b, ptrdiff_t width,
                   const Result *to) {
    product(ACTIVATE, rows, depth, a, depth, 1, b, width, to);
}

static void product_mask(ptrdiff_t rows, ptrdiff_t depth, const float *a, const float *b, ptrdiff_t width,
                   const Result *to) {
    product(MASK, rows, depth, a, depth, 1, b, width, to);
}

static void product_add(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
                ptrdiff_t depth_step, const float *b, ptrdiff_t width, const Result *to) {
    product(ADD, rows, depth, a, row_step, depth_step, b, width, to);
}

static void product_set(ptrdiff_t rows, ptrdiff_t depth, const float *a, const float *b, ptrdiff_t width,
                const Result *to) {
    product(SET, rows, depth, a, depth, 1, b, width, to);
}

static ptrdiff_t rounded(ptrdiff_t columns) { return (columns + 15) / 16 * 16; }

/* Width of the next block of columns: 64 are two blocks of 32 */
static ptrdiff_t block_width(ptrdiff_t remaining) {
    if (remaining == 64) return 32;
    return remaining < MOST ? remaining : MOST;
}

/* sums (pixels, columns) += a (pixels, group) b, b in blocks of columns */
static void accumulate(const Block *p, ptrdiff_t pixels, const float *a, const float *b,
                       ptrdiff_t columns, int first, float *sums) {
    const ptrdiff_t width = rounded(columns), depth = p->group / PAIRS;
    for (ptrdiff_t c = 0; c < width;) {
        const ptrdiff_t some = block_width(width - c);
        const Result to = {sums + c, width, NULL, NULL, NULL};
        if (first)
            product_set(pixels, depth, a, b, some, &to);
        else
            product_add(pixels, depth, a, depth, 1, b, some, &to);
        b += depth * some;
        c += some;
    }
}

/* (rows, columns), `step` floats between rows -> (rows / PAIRS, width), zero beyond `columns` */
#if defined(BFLOAT16)
static inline Vector pair(Vector low, Vector high) {
    /* as integers: bfloat16 is the upper half of a float32, rounded to nearest */
    const __m512i lower = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)low));
    const __m512i upper = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)high));
    return (Vector)_mm512_or_si512(lower, _mm512_slli_epi32(upper, 16));
}

static inline __m512 some_of(const float *from, ptrdiff_t count) {
    if (count >= 16) return _mm512_loadu_ps(from);
    return _mm512_maskz_loadu_ps((__mmask16)((1u << (count < 0 ? 0 : count)) - 1), from);
}

static void pack_pairs(const float *from, ptrdiff_t step, ptrdiff_t rows, ptrdiff_t columns,
                       float *to) {
    for (ptrdiff_t r = 0; r < rows; r += 2, to += columns)
        for (ptrdiff_t c = 0; c < columns; c += 16) {
            const Vector low = (Vector)some_of(from + r * step + c, columns - c);
            const Vector high = r + 1 < rows
                                    ? (Vector)some_of(from + (r + 1) * step + c, columns - c)
                                    : (Vector){0};
            const Vector both = pair(low, high);
            if (columns - c >= 16)
                store(to + c, both);
            else
                _mm512_mask_storeu_ps(to + c, (__mmask16)((1u << (columns - c)) - 1), (__m512)both);
        }
}

static inline void store_rounded(float *to, Vector value) {
    _mm256_storeu_si256((__m256i *)(void *)to, (__m256i)_mm512_cvtneps_pbh((__m512)value));
}

/* Round to bfloat16, in the same order: pairs of columns. count is a multiple of 16. */
static void pack_rows(const float *from, ptrdiff_t count, float *to) {
    for (ptrdiff_t i = 0; i < count; i += 16)
        store_rounded(to + i / 2, load(from + i));
}
#endif

static void pack(const float *from, ptrdiff_t step, ptrdiff_t rows, ptrdiff_t columns,
                 ptrdiff_t width, float *to) {
    for (ptrdiff_t r = 0; r < rows; r += PAIRS, to += width) {
#if defined(BFLOAT16)
        for (ptrdiff_t c = 0; c < width; c += 16)
            store(to + c, pair((Vector)some_of(from + r * step + c, columns - c),
                               (Vector)some_of(from + (r + 1) * step + c, columns - c)));
#else
        memcpy(to, from + r * step, (size_t)columns * sizeof(float));
        memset(to + columns, 0, (size_t)(width - columns) * sizeof(float));
#endif
    }
}

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

/* The operands of a product, a matrix (rows, columns): as it is, or pairs of columns */
static const float *as_rows(const float *from, ptrdiff_t count, float *space) {
#if defined(BFLOAT16)
    pack_rows(from, count, space);
    return space;
#else
    (void)count, (void)space;
    return from;
#endif
}

/* The same with pairs of rows */
static const float *as_columns(const float *from, ptrdiff_t rows, ptrdiff_t columns, float *space) {
#if defined(BFLOAT16)
    pack_pairs(from, columns, rows, columns, space);
    return space;
#else
    (void)rows, (void)columns, (void)space;
    return from;
#endif
}

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
    product_mask(some, p->outputs / PAIRS, o->grad_rows + start * (p->outputs / PAIRS), w->project_back,
           group, &to_spread);
    const Result to_project = {sums->project + g * p->outputs * group, group, NULL, NULL, NULL};
    product_add(p->outputs, (some + PAIRS - 1) / PAIRS, o->grad_columns + start / PAIRS * p->outputs, 1,
        p->outputs, as_columns(m->filtered, some, group, m->columns), group, &to_project);
    CALL(depthwise_weights, p, s, m, sums->filters + g * taps * group, sums->filter_bias + g * group);
    const ptrdiff_t pixels = s->images * (s->to - s->from) * p->width, first = s->from * p->width;
    if (!p->expands) {
        float unused[MOST] = {0};
        const Target to = {grad_x + first * p->inputs + g * group, p->inputs, NULL, NULL};
        if (grad_x != NULL) CALL(depthwise_back, p, s, w, m, &to, WHOLE, unused);
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

const Work WORK = {pack, forward, backward};
