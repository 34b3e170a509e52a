/* The Winograd transforms of whole tiles, as winograd.c calls them block by block. */
#ifndef PEEWIT_WINOGRAD_TILES_H
#define PEEWIT_WINOGRAD_TILES_H

#include "common.h"

enum { OUT = 4, IN = 6, POINTS = IN * IN, FILTER = 3 };

/* Channels per group in the transformed arrays: the columns of matmul.h */
enum { GROUP = 32 };

typedef struct {
    ptrdiff_t height, width, channels; /* of the images */
    ptrdiff_t rows, columns, tiles;    /* tiles down and across one image; tiles of all images */
} Plan;

/* Images (N, H, W, C). If `place` is not NULL they are sparse, with one value in each cell of 2x2
 * pixels and zeros in the other three, as in the gradient of max pooling: `values` and `place` are
 * (N, H / 2, W / 2, C), and `place` is the pixel of each value, 0 to 3. */
typedef struct {
    const float *values;
    const uint8_t *place; /* or NULL */
} Images;

/* Strides of a transformed activation in floats */
typedef struct {
    ptrdiff_t point; /* from one of the 36 elements to the next */
    ptrdiff_t tile;
    ptrdiff_t group; /* from one group of 32 channels to the next */
} Layout;

/* v = B^T d B for `count` tiles from `first`, where d are the tiles of x (N, H, W, C) */
void tiles_input(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images x, float *v, Layout at);

/* e = A g A^T for `count` tiles from `first`, where g (N, H, W, C) is the gradient of the output */
void tiles_gradient(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images g, float *e, Layout at);

/* y = A^T m A for `count` tiles from `first` and up to 32 channels from `channel`. m is
 * (36, tiles, 32) with a stride of `point` floats between the 36; y is (N, H, W, C). */
void tiles_output(const Plan *p, ptrdiff_t first, ptrdiff_t count, ptrdiff_t channel,
                  const float *m, ptrdiff_t point, float *y);

/* Like tiles_output, followed by 2x2 max pooling: y (N, H / 2, W / 2, C) gets the maximum of each
 * window and place its index, 0 to 3. An odd last row or column is dropped. A NaN in a window is
 * propagated. */
void tiles_output_pooled(const Plan *p, ptrdiff_t first, ptrdiff_t count, ptrdiff_t channel,
                         const float *m, ptrdiff_t point, float *y, uint8_t *place);

/* Filters and their strides in floats. Negative strides rotate them by 180 degrees. */
typedef struct {
    const float *w;
    ptrdiff_t outputs, inputs;
    ptrdiff_t output_step, input_step, row_step, column_step;
} Filters;

/* u = G g G^T for up to 32 outputs from `output` and up to 8 inputs from `input`. u is
 * (36, inputs, 32) with a stride of `point` floats between the 36. */
void filters_transform(const Filters *f, ptrdiff_t output, ptrdiff_t input, float *u,
                       ptrdiff_t point);

/* to = G^T u G for one output channel and up to 32 input channels. u is (36, 32) with a stride of
 * `point` floats between the 36; `to` is (3, 3, all inputs). */
void filters_gradient(const float *u, ptrdiff_t point, ptrdiff_t channels, ptrdiff_t inputs,
                      float *to);

/* The same for bfloat16, with the elements of two adjacent channels packed into one float: v is
 * (36, tiles, channels / 2) and u is (36, inputs / 2, 32). The number of channels is even;
 * `at.group` is unused. */
void tiles_input_bfloat16(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images x, float *v,
                          Layout at);
void filters_transform_bfloat16(const Filters *f, ptrdiff_t output, ptrdiff_t input, float *u,
                                ptrdiff_t point);

/* The same for bfloat16, with the elements of two adjacent tiles packed into one float; an odd last
 * tile is paired with zeros. `at.tile` is the stride between pairs. */
void tiles_input_pairs(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images x, float *v,
                       Layout at);
void tiles_gradient_pairs(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images g, float *e,
                          Layout at);

#endif
