/* The inverted residual block: expand by 1x1, filter each channel, project by 1x1. See
 * inverted_residual.c for the algorithm; the versions for each processor are compiled from
 * inverted_residual_work.h. */
#ifndef PEEWIT_INVERTED_RESIDUAL_H
#define PEEWIT_INVERTED_RESIDUAL_H

#include "common.h"

/* Shapes of a block. The inner channels are processed in `groups` of `group` channels each, the
 * images in units of `unit` images. */
typedef struct {
    ptrdiff_t images, height, width, inputs, inner, outputs, kernel, stride;
    ptrdiff_t out_height, out_width, top, left; /* padding "SAME" above and at the left */
    ptrdiff_t group, groups, unit, units;
    ptrdiff_t strip;         /* rows of the output that are computed together */
    ptrdiff_t rows, columns; /* of the padded inner activations of a strip */
    int expands, residual;
    int pairs; /* 2 if the operands of products are pairs of bfloat16, otherwise 1 */
} Block;

/* Weights of one group of channels, packed as right-hand operands of products. With pairs, two
 * rows are one row of pairs. The columns of `project` and `expand_back` are blocked by 48. */
typedef struct {
    float *expand;       /* (inputs, group) */
    float *expand_back;  /* (group, inputs) */
    float *project;      /* (group, outputs) */
    float *project_back; /* (outputs, group) */
    float *filters;      /* (kernel * kernel, group) */
    const float *expand_bias, *filter_bias;
} Weights;

/* Sums over the images of a unit, for all groups */
typedef struct {
    float *expand;      /* (groups, inputs, group) */
    float *expand_bias; /* (inner) */
    float *filters;     /* (groups, kernel * kernel, group) */
    float *filter_bias; /* (inner) */
    float *project;     /* (groups, outputs, group) */
    float *project_bias; /* (outputs) */
} Gradients;

/* Memory of one thread, for one group of channels of one unit */
typedef struct {
    float *inner;      /* after the expansion, padded: (unit, rows, columns, group) */
    float *filtered;   /* after the filters: (unit, strip, out_width, group) */
    float *grad_inner; /* (unit, rows, width, group) */
    float *spread;     /* gradient of the filters' sums, `stride` apart, padded like `inner` */
    float *sums; /* of the products over the groups: (pixels, inputs or outputs rounded up to 16) */
    float *x_rows, *x_columns, *grad_rows, *grad_columns; /* operands of products in bfloat16 */
    float *rows, *columns;
    float *scratch; /* a matrix of weights, (inputs or outputs, group) */
    int32_t *inner_place, *spread_place; /* where a pixel is in `inner` and `spread` */
} Memory;

/* The first convolution of the network: see first_convolution.c */
typedef struct {
    ptrdiff_t images, height, width, inputs, outputs, kernel, stride;
    ptrdiff_t out_height, out_width, top, left;
    ptrdiff_t depth; /* kernel * kernel * inputs, rounded up to an even number */
} First;

/* Memory of one thread, for one row of the output */
typedef struct {
    float *patches;  /* (out_width, depth) */
    float *masked;   /* the gradient that ReLU6 passes: (out_width, outputs) */
    float *operand, *columns; /* both in bfloat16 */
    int32_t *place;  /* 0, 1, 2, ... */
} FirstMemory;

/* The functions compiled for a type of processor */
typedef struct {
    void (*pack)(const float *from, ptrdiff_t step, ptrdiff_t rows, ptrdiff_t columns,
                 ptrdiff_t width, float *to);
    void (*forward)(const Block *p, ptrdiff_t images, const float *x, const Weights *weights,
                    const float *bias, float *out, const Memory *m);
    void (*backward)(const Block *p, ptrdiff_t images, const float *x, const Weights *weights,
                     const float *grad, float *grad_x, const Gradients *sums, const Memory *m);
    void (*first_forward)(const First *p, const float *x, const float *filters, const float *bias,
                          float *out, const FirstMemory *m);
    void (*first_backward)(const First *p, const float *x, const float *out, const float *grad,
                           float *sums, float *bias_sum, const FirstMemory *m);
} Work;

/* The functions for a version: FLOAT32 and BFLOAT16 are the fastest on this processor */
const Work *inverted_residual_work(int version);

extern const Work inverted_residual_portable;
#if defined(__x86_64__) && defined(__GNUC__)
extern const Work inverted_residual_avx2, inverted_residual_avx512;
#if __GNUC__ >= 10 || defined(__clang__)
#define WORK_BFLOAT16 1
extern const Work inverted_residual_bfloat16;
#endif
#endif

#endif
