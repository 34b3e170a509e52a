/* The matrix product inside of the Winograd convolution. */
#ifndef PEEWIT_PRODUCT_H
#define PEEWIT_PRODUCT_H

#include "tiles.h"

/* c (rows, GROUP) = a (rows, depth) b (depth, GROUP), or += where `add`. b and c are contiguous; the
 * neighbours of a are `row_step` and `depth_step` floats apart. rows is a multiple of 4. Each
 * element is summed in the order of depth, whatever the number of rows. */
void product(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
             ptrdiff_t depth_step, const float *b, float *c, int add);

/* The same where each float of a and b is a pair of bfloat16, neighbours in the depth, of which
 * `depth` counts the pairs. The sums are float32; on one kind of processor they are always taken in
 * the same order. */
void product_bfloat16(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
                      ptrdiff_t depth_step, const float *b, float *c, int add);

typedef void (*Product)(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
                        ptrdiff_t depth_step, const float *b, float *c, int add);

/* Whether the processor does that faster than the product of float32 */
EXPORT int has_native_bfloat16(void);

#endif
