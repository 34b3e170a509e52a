/* The matrix product inside of the Winograd convolution. */
#ifndef PEEWIT_PRODUCT_H
#define PEEWIT_PRODUCT_H

#include "tiles.h"

/* c (rows, GROUP) = a (rows, depth) b (depth, GROUP), or += where `add`. b and c are contiguous; the
 * neighbours of a are `row_step` and `depth_step` floats apart. rows is a multiple of 4. Each
 * element is summed in the order of depth, whatever the number of rows. */
void product(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
             ptrdiff_t depth_step, const float *b, float *c, int add);

#endif
