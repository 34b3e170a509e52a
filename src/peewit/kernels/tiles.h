/* The transforms of the Winograd convolution: what winograd.c does block by block. */
#ifndef PEEWIT_TILES_H
#define PEEWIT_TILES_H

#include "native.h"

enum { OUT = 4, IN = 6, POINTS = IN * IN, FILTER = 3 };

/* Transformed channels are kept in groups of so many: the columns of product.h */
enum { GROUP = 32 };

typedef struct {
    ptrdiff_t height, width, channels; /* of the images */
    ptrdiff_t rows, columns, tiles;    /* tiles of an image down and across, and of all images */
} Plan;

/* Images (N, H, W, C), or, where there is `place`, what has one value in each cell of 2x2 pixels and
 * zero in the other three: the values (N, H / 2, W / 2, C), and which of the four pixels has each. */
typedef struct {
    const float *values;
    const uint8_t *place; /* or NULL */
} Images;

/* Where a transformed activation has its elements: floats between neighbours */
typedef struct {
    ptrdiff_t point; /* of the 36 */
    ptrdiff_t tile;
    ptrdiff_t group; /* of the groups of 32 channels */
} Layout;

/* v = B^T d B for `count` tiles from `first`, d from x (N, H, W, C) */
void tiles_input(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images x, float *v, Layout at);

/* e = A g A^T for `count` tiles from `first`, from g (N, H, W, C), the gradient of the output */
void tiles_gradient(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images g, float *e, Layout at);

/* y = A^T m A for `count` tiles from `first`, up to 32 channels from `channel`; m (36, tiles, 32),
 * whose 36 are `point` floats apart; into y (N, H, W, C) */
void tiles_output(const Plan *p, ptrdiff_t first, ptrdiff_t count, ptrdiff_t channel,
                  const float *m, ptrdiff_t point, float *y);

/* As tiles_output, but only the largest of each 2x2 pixels goes into y (N, H / 2, W / 2, C), and which
 * of them it was into place; an odd last row or column is left out. The largest of a NaN and others
 * is NaN. */
void tiles_output_pooled(const Plan *p, ptrdiff_t first, ptrdiff_t count, ptrdiff_t channel,
                         const float *m, ptrdiff_t point, float *y, uint8_t *place);

/* Where the filters are: floats between neighbours. Negative steps turn them by 180 degrees. */
typedef struct {
    const float *w;
    ptrdiff_t outputs, inputs;
    ptrdiff_t output_step, input_step, row_step, column_step;
} Filters;

/* u = G g G^T for up to 32 outputs and up to 8 inputs from the given ones; u (36, inputs, 32), whose
 * 36 are `point` floats apart */
void filters_transform(const Filters *f, ptrdiff_t output, ptrdiff_t input, float *u,
                       ptrdiff_t point);

/* G^T u G for one output channel and up to 32 inputs; u (36, 32), whose 36 are `point` floats
 * apart, to (3, 3, all inputs) */
void filters_gradient(const float *u, ptrdiff_t point, ptrdiff_t channels, ptrdiff_t inputs,
                      float *to);

/* The same for products of bfloat16: of v and u, elements of two neighbouring channels, a multiple of
 * 2 of them, share the place of a float, so that v is (36, tiles, channels / 2) and u
 * (36, inputs / 2, 32); `at.group` is not used. */
void tiles_input_bfloat16(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images x, float *v,
                          Layout at);
void filters_transform_bfloat16(const Filters *f, ptrdiff_t output, ptrdiff_t input, float *u,
                                ptrdiff_t point);

/* The same where elements of two neighbouring tiles share the place of a float; after the last of an
 * odd number comes a zero. `at.tile` is the distance from pair to pair. */
void tiles_input_pairs(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images x, float *v,
                       Layout at);
void tiles_gradient_pairs(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images g, float *e,
                          Layout at);

#endif
