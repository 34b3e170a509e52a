/* The matrix product of the Winograd convolution. */
#ifndef PEEWIT_MATMUL_H
#define PEEWIT_MATMUL_H

#include "winograd_tiles.h"

/* c (rows, GROUP) = a (rows, depth) b (depth, GROUP), or += if `add`. b and c are contiguous; the
 * strides of a are `row_step` and `depth_step` floats. rows is a multiple of 4. Each element is
 * summed in the order of depth, for any number of rows. */
void matmul(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
            ptrdiff_t depth_step, const float *b, float *c, int add);

/* The same with each float of a and b holding a pair of bfloat16, adjacent in depth; `depth` counts
 * pairs. The sums are float32, and their order is fixed for a given processor type. */
void matmul_bfloat16(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
                     ptrdiff_t depth_step, const float *b, float *c, int add);

typedef void (*Matmul)(ptrdiff_t rows, ptrdiff_t depth, const float *a, ptrdiff_t row_step,
                       ptrdiff_t depth_step, const float *b, float *c, int add);

/* 1 if matmul_bfloat16 uses native bfloat16 instructions, and so is faster than matmul */
EXPORT int has_native_bfloat16(void);

#endif
