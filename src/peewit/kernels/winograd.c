/* 3x3 convolution, stride 1, padding 1, by Winograd's minimal filtering F(4x4, 3x3). The algorithm
 * and its matrices are in winograd_transforms.h.
 *
 * Tiles are processed in blocks that stay in the cache from the input transform to the output
 * transform, so the transformed activations, 2.25 times as large as the activations themselves, are
 * never written to memory.
 *
 * Layout: float32, channels last, (N, H, W, C) contiguous, C a multiple of 8. The order of every
 * sum is independent of the number of threads, and the forward result of an image is independent of
 * the other images in the batch.
 *
 * With `bfloat16`, the operands of the matrix products are rounded to bfloat16 and packed two to a
 * float, which halves the depth. Everything else, including the sums, is float32.
 */
#include "matmul.h"
#include "winograd_tiles.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
static ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

/* Floats from one of the 36 elements to the next. One cache line more than the tiles need:
 * otherwise the addresses would be a power of two apart and map to the same few cache sets. */
static ptrdiff_t padded(ptrdiff_t tiles, ptrdiff_t channels) { return tiles * channels + 16; }

static Plan plan(ptrdiff_t images, ptrdiff_t height, ptrdiff_t width, ptrdiff_t channels) {
    const ptrdiff_t rows = ceil_div(height, OUT), columns = ceil_div(width, OUT);
    const Plan result = {height, width, channels, rows, columns, images * rows * columns};
    return result;
}

/* Size of u in floats, for either precision */
EXPORT ptrdiff_t winograd_filters_space(ptrdiff_t outputs, ptrdiff_t inputs) {
    return ceil_div(outputs, GROUP) * POINTS * padded(inputs, GROUP);
}

/* Transform the filters w, given by its strides in floats, to u (outputs / 32, 36, inputs, 32); in
 * bfloat16 u is (outputs / 32, 36, inputs / 2, 32). */
EXPORT void winograd_filters(const float *w, ptrdiff_t outputs, ptrdiff_t inputs,
                             ptrdiff_t output_step, ptrdiff_t input_step, ptrdiff_t row_step,
                             ptrdiff_t column_step, int bfloat16, float *u, int threads) {
    const Filters f = {w, outputs, inputs, output_step, input_step, row_step, column_step};
    const ptrdiff_t some = 8, blocks = ceil_div(inputs, some);
    const ptrdiff_t point = padded(bfloat16 ? inputs / 2 : inputs, GROUP);
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t i = 0; i < ceil_div(outputs, GROUP) * blocks; i++) {
        const ptrdiff_t group = i / blocks;
        float *panel = u + group * POINTS * point;
        if (bfloat16)
            filters_transform_bfloat16(&f, group * GROUP, i % blocks * some, panel, point);
        else
            filters_transform(&f, group * GROUP, i % blocks * some, panel, point);
    }
}

/* Tiles per block of one thread. V, 36 x tiles x inputs, takes about 320 kB, a third of a typical
 * L2 cache. Blocks twice as large are 1 % slower, ten times as large 5 to 14 %. */
static ptrdiff_t block_tiles(const Plan *p, int threads) {
    const ptrdiff_t fitting = larger(80 * 1024 / (POINTS * p->channels) / 12 * 12, 12);
    return smaller(fitting, ceil_div(ceil_div(p->tiles, threads), 4) * 4);
}

/* Workspace of winograd_convolve in floats, for either precision */
EXPORT ptrdiff_t winograd_convolve_space(ptrdiff_t images, ptrdiff_t height, ptrdiff_t width,
                                         ptrdiff_t inputs, int threads) {
    const Plan p = plan(images, height, width, inputs);
    const ptrdiff_t tiles = block_tiles(&p, threads);
    return threads * POINTS * (padded(tiles, inputs) + padded(tiles, GROUP));
}

/* Convolve x (N, H, W, inputs) with u from winograd_filters into y (N, H, W, outputs).
 *
 * If x_place is not NULL, x is sparse: (N, H / 2, W / 2, inputs), one value per 2x2 cell (see
 * Images in winograd_tiles.h). If y_place is not NULL, only the maximum of each cell is written to
 * y, (N, H / 2, W / 2, outputs), and its index to y_place. */
EXPORT void winograd_convolve(const float *x, const uint8_t *x_place, ptrdiff_t images,
                              ptrdiff_t height, ptrdiff_t width, ptrdiff_t inputs, const float *u,
                              ptrdiff_t outputs, int bfloat16, float *y, uint8_t *y_place,
                              float *workspace, int threads) {
    const Plan in = plan(images, height, width, inputs);
    const Plan out = plan(images, height, width, outputs);
    const ptrdiff_t tiles = block_tiles(&in, threads), depth = bfloat16 ? inputs / 2 : inputs;
    const ptrdiff_t v_point = padded(tiles, depth), m_point = padded(tiles, GROUP);
    const ptrdiff_t u_point = padded(depth, GROUP);
    const Layout at = {v_point, depth, GROUP};
    const Matmul multiply = bfloat16 ? matmul_bfloat16 : matmul;
    const Images from = {x, x_place};
    (void)threads;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (ptrdiff_t first = 0; first < in.tiles; first += tiles) {
#if defined(_OPENMP)
        const int thread = omp_get_thread_num();
#else
        const int thread = 0;
#endif
        float *v = workspace + thread * POINTS * (v_point + m_point), *m = v + POINTS * v_point;
        const ptrdiff_t count = smaller(tiles, in.tiles - first);
        (bfloat16 ? tiles_input_bfloat16 : tiles_input)(&in, first, count, from, v, at);
        for (ptrdiff_t n = 0; n < outputs; n += GROUP) {
            const float *panel = u + n / GROUP * POINTS * u_point;
            for (int i = 0; i < POINTS; i++) /* rounded up to 4 rows; padding rows are ignored */
                multiply(ceil_div(count, 4) * 4, depth, v + i * v_point, depth, 1,
                         panel + i * u_point, m + i * m_point, 0);
            if (y_place)
                tiles_output_pooled(&out, first, count, n, m, m_point, y, y_place);
            else
                tiles_output(&out, first, count, n, m, m_point, y);
        }
    }
}

/* Tiles per chunk, which all threads process together. V and E should stay in the cache, but each
 * chunk reads and writes the 36 sums of every filter and synchronises the threads twice. Fastest
 * were 32 tiles for 64 x 64 channels, 64 for 128 x 128, and 128 or more for 256 x 256; the
 * differences were at most 4 %. */
static ptrdiff_t chunk_tiles(ptrdiff_t tiles, ptrdiff_t in_groups, ptrdiff_t out_groups) {
    return smaller(tiles, smaller(192, larger(96, 8 * (in_groups + out_groups))));
}

/* Workspace of winograd_filters_gradient in floats, for either precision */
EXPORT ptrdiff_t winograd_gradient_space(ptrdiff_t images, ptrdiff_t height, ptrdiff_t width,
                                         ptrdiff_t inputs, ptrdiff_t outputs) {
    const ptrdiff_t in_groups = ceil_div(inputs, GROUP), out_groups = ceil_div(outputs, GROUP);
    const Plan p = plan(images, height, width, inputs);
    const ptrdiff_t tiles = chunk_tiles(p.tiles, in_groups, out_groups);
    return POINTS * ((in_groups + out_groups) * padded(tiles, GROUP) +
                     in_groups * out_groups * padded(GROUP, GROUP));
}

/* Compute the gradient of the filters, (outputs, 3, 3, inputs), from x (N, H, W, inputs) and g
 * (N, H, W, outputs), the gradient of the output. If g_place is not NULL, g is sparse:
 * (N, H / 2, W / 2, outputs), one value per 2x2 cell. */
EXPORT void winograd_filters_gradient(const float *x, ptrdiff_t images, ptrdiff_t height,
                                      ptrdiff_t width, ptrdiff_t inputs, const float *g,
                                      const uint8_t *g_place, ptrdiff_t outputs, int bfloat16,
                                      float *gradient, float *workspace, int threads) {
    const Plan in = plan(images, height, width, inputs);
    const Plan out = plan(images, height, width, outputs);
    const ptrdiff_t in_groups = ceil_div(inputs, GROUP), out_groups = ceil_div(outputs, GROUP);
    const ptrdiff_t tiles = chunk_tiles(in.tiles, in_groups, out_groups), some = 4;
    const ptrdiff_t pairs = out_groups * in_groups;
    /* v, e: (group, 36, tiles or pairs of tiles, 32); u: (output group, input group, 36, 32, 32) */
    const ptrdiff_t together = bfloat16 ? 2 : 1;
    const ptrdiff_t point = padded(tiles, GROUP), square = padded(GROUP, GROUP);
    const Layout at = {point, GROUP, POINTS * point};
    const Matmul multiply = bfloat16 ? matmul_bfloat16 : matmul;
    const Images from = {x, NULL}, gradients = {g, g_place};
    float *v = workspace, *e = v + in_groups * at.group, *u = e + out_groups * at.group;
    (void)threads;
    for (ptrdiff_t first = 0; first < in.tiles; first += tiles) {
        const ptrdiff_t count = smaller(tiles, in.tiles - first);
#pragma omp parallel for schedule(static) num_threads(threads)
        for (ptrdiff_t t = 0; t < count; t += some) {
            const ptrdiff_t these = smaller(some, count - t);
            float *v_tile = v + t / together * GROUP, *e_tile = e + t / together * GROUP;
            (bfloat16 ? tiles_input_pairs : tiles_input)(&in, first + t, these, from, v_tile, at);
            (bfloat16 ? tiles_gradient_pairs : tiles_gradient)(&out, first + t, these, gradients,
                                                               e_tile, at);
        }
#pragma omp parallel for schedule(static) num_threads(threads)
        for (ptrdiff_t item = 0; item < POINTS * pairs; item++) {
            const ptrdiff_t i = item / pairs, pair = item % pairs;
            const ptrdiff_t o = pair / in_groups, c = pair % in_groups;
            multiply(smaller(GROUP, outputs - o * GROUP), ceil_div(count, together),
                     e + o * at.group + i * point, 1, GROUP, v + c * at.group + i * point,
                     u + (pair * POINTS + i) * square, first > 0);
        }
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (ptrdiff_t o = 0; o < outputs; o++) {
        for (ptrdiff_t c = 0; c < in_groups; c++) {
            const ptrdiff_t pair = o / GROUP * in_groups + c;
            filters_gradient(u + pair * POINTS * square + o % GROUP * GROUP, square,
                             smaller(GROUP, inputs - c * GROUP), inputs,
                             gradient + o * FILTER * FILTER * inputs + c * GROUP);
        }
    }
}
