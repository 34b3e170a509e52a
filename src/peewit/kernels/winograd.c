/* The transforms of the 3x3 convolution by Winograd's minimal filtering F(4x4, 3x3).
 *
 * Lavin and Gray 2015, arXiv 1509.09308, sections 4.1 and 4.3: a tile of 4x4 outputs Y of a 3x3
 * filter g is a function of the 6x6 inputs d around it,
 *
 *     Y = A^T [ (G g G^T) * (B^T d B) ] A          (* is the product element by element)
 *
 * so that 36 multiplications do the work of 144, and summing over the channels makes each of the 36
 * elements one matrix product, tiles x in times in x out. With the points 0, 1, -1, 2, -2:
 *
 *           4  0 -5  0  1  0            1/4     0     0
 *           0 -4 -4  1  1  0           -1/6  -1/6  -1/6           1  1  1  1  1  0
 *     B^T = 0  4 -4 -1  1  0       G = -1/6   1/6  -1/6     A^T = 0  1 -1  2 -2  0
 *           0 -2 -1  2  1  0           1/24  1/12   1/6           0  1  1  4  4  0
 *           0  2 -1 -2  1  0           1/24 -1/12   1/6           0  1 -1  8 -8  1
 *           0  4  0 -5  0  1              0     0     1
 *
 * The gradient of the filter follows from the same formula: with e = A (dL/dY) A^T and v = B^T d B,
 * dL/dg = G^T (sum over tiles of v * e) G.
 *
 * Layout: float32, channels last, (N, H, W, C) contiguous, C a multiple of 8; a transformed
 * activation is (36, tiles, C). Stride 1, padding 1. Tiles are independent, so results do not
 * depend on the number of threads.
 */
#include "native.h"

/* Channels worked on at once. Where the compiler knows no vectors, one: the same formulas. */
#if defined(__GNUC__)
#define LANES 8
typedef float Lanes __attribute__((vector_size(32), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))
/* a function that is inlined passes nothing, in whatever registers */
#pragma GCC diagnostic ignored "-Wpsabi"
#else
#define LANES 1
typedef float Lanes;
#define INLINE static inline
#endif

enum { OUT = 4, IN = 6, POINTS = IN * IN };

INLINE Lanes load(const float *from) { return *(const Lanes *)from; }
INLINE void store(float *to, Lanes value) { *(Lanes *)to = value; }

/* to[0], to[step], ... = B^T d, for one column d of 6 that are `step` apart too */
INLINE void times_b(const Lanes *d, int step, Lanes *to) {
    const Lanes d0 = d[0], d1 = d[step], d2 = d[2 * step];
    const Lanes d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const Lanes even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1;
    const Lanes even2 = d4 - d2, odd2 = 2.0f * (d3 - d1);
    to[0] = 4.0f * d0 - 5.0f * d2 + d4;
    to[step] = even + odd;
    to[2 * step] = even - odd;
    to[3 * step] = even2 + odd2;
    to[4 * step] = even2 - odd2;
    to[5 * step] = 4.0f * d1 - 5.0f * d3 + d5;
}

/* to = A^T m: 6 to 4 */
INLINE void times_a(const Lanes *m, int step, Lanes *to) {
    const Lanes sum1 = m[step] + m[2 * step], difference1 = m[step] - m[2 * step];
    const Lanes sum2 = m[3 * step] + m[4 * step], difference2 = m[3 * step] - m[4 * step];
    to[0] = m[0] + sum1 + sum2;
    to[step] = difference1 + 2.0f * difference2;
    to[2 * step] = sum1 + 4.0f * sum2;
    to[3 * step] = difference1 + 8.0f * difference2 + m[5 * step];
}

/* to = A y: 4 to 6 */
INLINE void times_a_transposed(const Lanes *y, int step, Lanes *to) {
    const Lanes y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    const Lanes even = y0 + y2, odd = y1 + y3;
    const Lanes even2 = y0 + 4.0f * y2, odd2 = 2.0f * y1 + 8.0f * y3;
    to[0] = y0;
    to[step] = even + odd;
    to[2 * step] = even - odd;
    to[3 * step] = even2 + odd2;
    to[4 * step] = even2 - odd2;
    to[5 * step] = y3;
}

typedef struct {
    ptrdiff_t height, width, channels;
    ptrdiff_t rows, columns, tiles; /* tiles of an image down and across, and of all images */
} Plan;

static Plan plan(ptrdiff_t images, ptrdiff_t height, ptrdiff_t width, ptrdiff_t channels) {
    const ptrdiff_t rows = (height + OUT - 1) / OUT, columns = (width + OUT - 1) / OUT;
    const Plan result = {height, width, channels, rows, columns, images * rows * columns};
    return result;
}

static const float ZERO[LANES] = {0};

/* The addresses of a square of size x size pixels from (top, left), and the step to the next
 * channels there: outside of the image zeros that go nowhere. */
INLINE void addresses(const Plan *p, const float *image, ptrdiff_t top, ptrdiff_t left, int size,
                      const float **from, ptrdiff_t *follow) {
    for (int i = 0; i < size; i++) {
        for (int j = 0; j < size; j++) {
            const ptrdiff_t y = top + i, x = left + j;
            const int inside = y >= 0 && y < p->height && x >= 0 && x < p->width;
            from[size * i + j] = inside ? image + (y * p->width + x) * p->channels : ZERO;
            follow[size * i + j] = inside ? 1 : 0;
        }
    }
}

/* One row of tiles of one image: v = B^T d B */
FOR_EACH_CPU static void row_input(const Plan *p, ptrdiff_t row, const float *x, float *v) {
    const float *image = x + row / p->rows * p->height * p->width * p->channels;
    for (ptrdiff_t column = 0; column < p->columns; column++) {
        float *to = v + (row * p->columns + column) * p->channels;
        const float *from[POINTS];
        ptrdiff_t follow[POINTS];
        addresses(p, image, row % p->rows * OUT - 1, column * OUT - 1, IN, from, follow);
        for (ptrdiff_t c = 0; c < p->channels; c += LANES) {
            Lanes d[POINTS], half[POINTS];
            for (int i = 0; i < POINTS; i++) d[i] = load(from[i] + c * follow[i]);
            for (int j = 0; j < IN; j++) times_b(d + j, IN, half + j);
            for (int i = 0; i < IN; i++) times_b(half + IN * i, 1, d + IN * i);
            for (int i = 0; i < POINTS; i++) store(to + i * p->tiles * p->channels + c, d[i]);
        }
    }
}

/* One row of tiles of one image: y = A^T m A */
FOR_EACH_CPU static void row_output(const Plan *p, ptrdiff_t row, const float *m, float *y) {
    float *image = y + row / p->rows * p->height * p->width * p->channels;
    const ptrdiff_t top = row % p->rows * OUT;
    for (ptrdiff_t column = 0; column < p->columns; column++) {
        const float *from = m + (row * p->columns + column) * p->channels;
        const ptrdiff_t left = column * OUT;
        for (ptrdiff_t c = 0; c < p->channels; c += LANES) {
            Lanes d[POINTS], half[OUT * IN], out[OUT * OUT];
            for (int i = 0; i < POINTS; i++) d[i] = load(from + i * p->tiles * p->channels + c);
            for (int j = 0; j < IN; j++) times_a(d + j, IN, half + j);
            for (int i = 0; i < OUT; i++) times_a(half + IN * i, 1, out + OUT * i);
            for (int i = 0; i < OUT && top + i < p->height; i++)
                for (int j = 0; j < OUT && left + j < p->width; j++)
                    store(image + ((top + i) * p->width + left + j) * p->channels + c,
                          out[OUT * i + j]);
        }
    }
}

/* One row of tiles of one image: e = A g A^T, g the gradient of the output */
FOR_EACH_CPU static void row_gradient(const Plan *p, ptrdiff_t row, const float *g, float *e) {
    const float *image = g + row / p->rows * p->height * p->width * p->channels;
    for (ptrdiff_t column = 0; column < p->columns; column++) {
        float *to = e + (row * p->columns + column) * p->channels;
        const float *from[OUT * OUT];
        ptrdiff_t follow[OUT * OUT];
        addresses(p, image, row % p->rows * OUT, column * OUT, OUT, from, follow);
        for (ptrdiff_t c = 0; c < p->channels; c += LANES) {
            Lanes d[OUT * OUT], half[IN * OUT], out[POINTS];
            for (int i = 0; i < OUT * OUT; i++) d[i] = load(from[i] + c * follow[i]);
            for (int j = 0; j < OUT; j++) times_a_transposed(d + j, OUT, half + j);
            for (int i = 0; i < IN; i++) times_a_transposed(half + OUT * i, 1, out + IN * i);
            for (int i = 0; i < POINTS; i++) store(to + i * p->tiles * p->channels + c, out[i]);
        }
    }
}

/* x (N, H, W, C) to v (36, tiles, C) */
EXPORT void winograd_input(const float *x, ptrdiff_t images, ptrdiff_t height, ptrdiff_t width,
                           ptrdiff_t channels, float *v, int threads) {
    const Plan p = plan(images, height, width, channels);
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t row = 0; row < images * p.rows; row++) row_input(&p, row, x, v);
}

/* m (36, tiles, C) to y (N, H, W, C) */
EXPORT void winograd_output(float *y, ptrdiff_t images, ptrdiff_t height, ptrdiff_t width,
                            ptrdiff_t channels, const float *m, int threads) {
    const Plan p = plan(images, height, width, channels);
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t row = 0; row < images * p.rows; row++) row_output(&p, row, m, y);
}

/* g (N, H, W, C), the gradient of y, to e (36, tiles, C) */
EXPORT void winograd_gradient(const float *g, ptrdiff_t images, ptrdiff_t height, ptrdiff_t width,
                              ptrdiff_t channels, float *e, int threads) {
    const Plan p = plan(images, height, width, channels);
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t row = 0; row < images * p.rows; row++) row_gradient(&p, row, g, e);
}
