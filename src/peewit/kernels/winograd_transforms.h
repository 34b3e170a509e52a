/* The transforms of Winograd's minimal filtering F(4x4, 3x3).
 *
 * Lavin and Gray 2015, arXiv 1509.09308, sections 4.1 and 4.3: a tile of 4x4 outputs Y of a 3x3
 * filter g is a function of the 6x6 inputs d around it,
 *
 *     Y = A^T [ (G g G^T) * (B^T d B) ] A          (* is the product element by element)
 *
 * so 36 multiplications replace 144. Summing over the input channels turns each of the 36 elements
 * into one matrix product, (tiles x in) (in x out). With the interpolation points 0, 1, -1, 2, -2:
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
 * Layout: float32, channels last, (N, H, W, C) contiguous, C a multiple of 8; padding 1. In tiles
 * that extend past the edge, pixels outside of the image count as zero.
 */
#ifndef PEEWIT_WINOGRAD_TRANSFORMS_H
#define PEEWIT_WINOGRAD_TRANSFORMS_H

#include "winograd_tiles.h"

/* Channels per vector. Without vector extensions, one channel at a time by the same formulas. */
#if defined(__GNUC__)
#define LANES 8
typedef float Lanes __attribute__((vector_size(32), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))
/* irrelevant: the functions concerned are always inlined and pass nothing in registers */
#pragma GCC diagnostic ignored "-Wpsabi"
#else
#define LANES 1
typedef float Lanes;
#define INLINE static inline
#endif

/* Which of the four pixels of a cell holds its value, for each lane */
#if defined(__GNUC__)
typedef int32_t Places __attribute__((vector_size(32)));
typedef uint8_t Bytes __attribute__((vector_size(8), aligned(1), may_alias));
INLINE Places places(const uint8_t *from) {
    return __builtin_convertvector(*(const Bytes *)from, Places);
}
INLINE Lanes where(Places place, int k, Lanes value) {
    return (Lanes)((Places)value & (place == k));
}
/* a where `first` is all ones, b where it is 0 */
INLINE Lanes either(Places first, Lanes a, Lanes b) {
    return (Lanes)(((Places)a & first) | ((Places)b & ~first));
}
/* The maximum of a, b, c, d and its index; the first of equals; NaN if any of them is NaN */
INLINE void largest(Lanes a, Lanes b, Lanes c, Lanes d, float *value, uint8_t *place) {
    const Places right = b > a, lower_right = d > c;
    const Lanes top = either(right, b, a), bottom = either(lower_right, d, c);
    const Places below = bottom > top, top_place = right & 1, bottom_place = 2 + (lower_right & 1);
    const Lanes sum = a + b + c + d; /* propagates a NaN, which comparisons would drop */
    *(Lanes *)value = either(sum == sum, either(below, bottom, top), sum);
    *(Bytes *)place =
        __builtin_convertvector((bottom_place & below) | (top_place & ~below), Bytes);
}
#else
typedef int Places;
INLINE Places places(const uint8_t *from) { return *from; }
INLINE Lanes where(Places place, int k, Lanes value) { return place == k ? value : 0.0f; }
INLINE void largest(Lanes a, Lanes b, Lanes c, Lanes d, float *value, uint8_t *place) {
    const Lanes top = b > a ? b : a, bottom = d > c ? d : c, sum = a + b + c + d;
    *value = sum == sum ? (bottom > top ? bottom : top) : sum;
    *place = (uint8_t)(bottom > top ? 2 + (d > c) : b > a);
}
#endif

INLINE Lanes load(const float *from) { return *(const Lanes *)from; }
INLINE void store(float *to, Lanes value) { *(Lanes *)to = value; }

/* to = B^T d for one column of 6; the elements of d and of to are `step` apart */
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

/* to = A^T m, 6 to 4 elements */
INLINE void times_a(const Lanes *m, int step, Lanes *to) {
    const Lanes sum1 = m[step] + m[2 * step], difference1 = m[step] - m[2 * step];
    const Lanes sum2 = m[3 * step] + m[4 * step], difference2 = m[3 * step] - m[4 * step];
    to[0] = m[0] + sum1 + sum2;
    to[step] = difference1 + 2.0f * difference2;
    to[2 * step] = sum1 + 4.0f * sum2;
    to[3 * step] = difference1 + 8.0f * difference2 + m[5 * step];
}

/* to = A y, 4 to 6 elements */
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

/* to = G g, 3 to 6 elements */
INLINE void times_g(const Lanes *g, int step, Lanes *to) {
    const Lanes g0 = g[0], g1 = g[step], g2 = g[2 * step];
    const Lanes even = (g0 + g2) * (-1.0f / 6.0f), odd = g1 * (-1.0f / 6.0f);
    const Lanes even2 = g0 * (1.0f / 24.0f) + g2 * (1.0f / 6.0f), odd2 = g1 * (1.0f / 12.0f);
    to[0] = 0.25f * g0;
    to[step] = even + odd;
    to[2 * step] = even - odd;
    to[3 * step] = even2 + odd2;
    to[4 * step] = even2 - odd2;
    to[5 * step] = g2;
}

/* to = G^T u, 6 to 3 elements */
INLINE void times_g_transposed(const Lanes *u, int step, Lanes *to) {
    const Lanes sum1 = u[step] + u[2 * step], difference1 = u[step] - u[2 * step];
    const Lanes sum2 = u[3 * step] + u[4 * step], difference2 = u[3 * step] - u[4 * step];
    to[0] = 0.25f * u[0] - sum1 * (1.0f / 6.0f) + sum2 * (1.0f / 24.0f);
    to[step] = difference2 * (1.0f / 12.0f) - difference1 * (1.0f / 6.0f);
    to[2 * step] = (sum2 - sum1) * (1.0f / 6.0f) + u[5 * step];
}

static const float ZERO[LANES] = {0};

/* A square of size x size pixels: the addresses of its pixels, or of the 2x2 cells that cover it,
 * and the stride between channels. Outside of the image, the address is that of zeros and the
 * stride 0. */
typedef struct {
    const float *from[POINTS];
    ptrdiff_t stride[POINTS];
    const uint8_t *place[POINTS]; /* cells only */
} Square;

static const uint8_t NOWHERE[LANES] = {0};

/* Find the size x size pixels, or cells, of one image whose first is at (top, left). */
INLINE void find(const Plan *p, Images x, ptrdiff_t image, ptrdiff_t top, ptrdiff_t left, int size,
                 Square *square) {
    const ptrdiff_t scale = x.place ? 2 : 1, height = p->height / scale, width = p->width / scale;
    const ptrdiff_t start = image * height * width;
    for (int i = 0; i < size; i++) {
        for (int j = 0; j < size; j++) {
            const ptrdiff_t y = top + i, z = left + j;
            const int inside = y >= 0 && y < height && z >= 0 && z < width;
            const ptrdiff_t at = (start + y * width + z) * p->channels;
            square->from[size * i + j] = inside ? x.values + at : ZERO;
            square->stride[size * i + j] = inside ? 1 : 0;
            if (x.place) square->place[size * i + j] = inside ? x.place + at : NOWHERE;
        }
    }
}

/* Expand cells x cells cells, channels from c, to size x size pixels. If `odd`, the first row and
 * column of pixels are the second of their cells. */
INLINE void expand(const Square *square, ptrdiff_t c, int cells, int size, int odd, Lanes *d) {
    for (int i = 0; i < cells; i++) {
        for (int j = 0; j < cells; j++) {
            const int cell = cells * i + j;
            const ptrdiff_t at = c * square->stride[cell];
            const Lanes value = load(square->from[cell] + at);
            const Places place = places(square->place[cell] + at);
            for (int k = 0; k < 4; k++) {
                const int y = 2 * i + k / 2 - odd, x = 2 * j + k % 2 - odd;
                if (y >= 0 && y < size && x >= 0 && x < size)
                    d[size * y + x] = where(place, k, value);
            }
        }
    }
}

/* Find the size x size pixels of tile t, which start `border` pixels before its outputs, or the
 * cells that cover them. */
INLINE void find_tile(const Plan *p, ptrdiff_t t, Images x, int size, int border, Square *square) {
    const ptrdiff_t row = t / p->columns, top = row % p->rows * OUT, left = t % p->columns * OUT;
    if (x.place)
        find(p, x, row / p->rows, top / 2 - border, left / 2 - border, size / 2 + border, square);
    else
        find(p, x, row / p->rows, top - border, left - border, size, square);
}

/* Load its pixels, channels from c. */
INLINE void load_tile(const Square *square, int cells, int size, int border, ptrdiff_t c,
                      Lanes *d) {
    if (cells)
        expand(square, c, size / 2 + border, size, border, d);
    else
        for (int i = 0; i < size * size; i++) d[i] = load(square->from[i] + c * square->stride[i]);
}

INLINE void find_inputs(const Plan *p, ptrdiff_t t, Images x, Square *square) {
    find_tile(p, t, x, IN, 1, square);
}

/* v (36) = B^T d B, channels from c */
INLINE void input_transform(const Square *square, int cells, ptrdiff_t c, Lanes *v) {
    Lanes half[POINTS];
    load_tile(square, cells, IN, 1, c, v);
    for (int j = 0; j < IN; j++) times_b(v + j, IN, half + j);
    for (int i = 0; i < IN; i++) times_b(half + IN * i, 1, v + IN * i);
}

INLINE void find_gradients(const Plan *p, ptrdiff_t t, Images g, Square *square) {
    find_tile(p, t, g, OUT, 0, square);
}

/* e (36) = A g A^T, channels from c */
INLINE void gradient_transform(const Square *square, int cells, ptrdiff_t c, Lanes *e) {
    Lanes g[OUT * OUT], half[IN * OUT];
    load_tile(square, cells, OUT, 0, c, g);
    for (int j = 0; j < OUT; j++) times_a_transposed(g + j, OUT, half + j);
    for (int i = 0; i < IN; i++) times_a_transposed(half + OUT * i, 1, e + IN * i);
}

/* y (16) = A^T m A; the 36 elements of m are `point` floats apart */
INLINE void output_transform(const float *m, ptrdiff_t point, Lanes *y) {
    Lanes d[POINTS], half[OUT * IN];
    for (int i = 0; i < POINTS; i++) d[i] = load(m + i * point);
    for (int j = 0; j < IN; j++) times_a(d + j, IN, half + j);
    for (int i = 0; i < OUT; i++) times_a(half + IN * i, 1, y + OUT * i);
}

/* The weights of SOME inputs, whose filters are transformed together: outputs innermost, whatever
 * the strides of w */
enum { TAPS = FILTER * FILTER, SOME = 8 };
typedef float Weights[TAPS][SOME][GROUP];

/* Gather the weights of up to 32 outputs and up to 8 inputs. */
INLINE void collect(const Filters *f, ptrdiff_t output, ptrdiff_t input, ptrdiff_t inputs,
                    Weights square) {
    const ptrdiff_t outputs = f->outputs - output < GROUP ? f->outputs - output : GROUP;
    const float *first = f->w + output * f->output_step + input * f->input_step;
    for (int i = 0; i < TAPS; i++) {
        const float *tap = first + i / FILTER * f->row_step + i % FILTER * f->column_step;
        for (ptrdiff_t n = 0; n < GROUP; n++)
            for (ptrdiff_t k = 0; k < inputs; k++)
                square[i][k][n] =
                    n < outputs ? tap[n * f->output_step + k * f->input_step] : 0.0f;
    }
}

/* u (36) = G g G^T for input k and the outputs from n */
INLINE void filter_transform(Weights square, ptrdiff_t k, ptrdiff_t n, Lanes *u) {
    Lanes g[TAPS], half[IN * FILTER];
    for (int i = 0; i < TAPS; i++) g[i] = load(square[i][k] + n);
    for (int j = 0; j < FILTER; j++) times_g(g + j, FILTER, half + j);
    for (int i = 0; i < IN; i++) times_g(half + FILTER * i, 1, u + IN * i);
}

#endif
