/* Vectors, matrix products with fused results, and their operands: part of
 * inverted_residual_work.h. */
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
                    ptrdiff_t row_step, ptrdiff_t depth_step, const float *b, ptrdiff_t width, const Result *to) {
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

static void product_activate(ptrdiff_t rows, ptrdiff_t depth, const float *a, const float *b,
                             ptrdiff_t width, const Result *to) {
    product(ACTIVATE, rows, depth, a, depth, 1, b, width, to);
}

static void product_mask(ptrdiff_t rows, ptrdiff_t depth, const float *a, const float *b,
                         ptrdiff_t width, const Result *to) {
    product(MASK, rows, depth, a, depth, 1, b, width, to);
}

static void product_add(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
                ptrdiff_t depth_step, const float *b, ptrdiff_t width, const Result *to) {
    product(ADD, rows, depth, a, row_step, depth_step, b, width, to);
}

static void product_set(ptrdiff_t rows, ptrdiff_t depth, const float *a, const float *b,
                        ptrdiff_t width, const Result *to) {
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

/* Round to bfloat16, in the same order: pairs of columns. count is even. */
static void pack_rows(const float *from, ptrdiff_t count, float *to) {
    ptrdiff_t i = 0;
    for (; i + 16 <= count; i += 16) store_rounded(to + i / 2, load(from + i));
    if (i < count) {
        float last[8];
        store_rounded(last, (Vector)some_of(from + i, count - i));
        memcpy(to + i / 2, last, (size_t)(count - i) / 2 * sizeof(float));
    }
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
