/* The Winograd transforms of whole tiles for matrix products in bfloat16: see
 * winograd_transforms.h.
 *
 * The transforms are computed in float32; their results are rounded to bfloat16, and two of them,
 * adjacent in the depth of the products, are packed into one float.
 */
#include "winograd_transforms.h"

#include <string.h>

#if defined(__GNUC__)
typedef uint32_t Bits __attribute__((vector_size(32)));
typedef uint16_t Halves __attribute__((vector_size(16), aligned(2), may_alias));
typedef Bits LooseBits __attribute__((aligned(4), may_alias));
INLINE Bits bits(Lanes value) { return (Bits)value; }
#else
typedef uint32_t Bits;
INLINE Bits bits(Lanes value) {
    Bits result;
    memcpy(&result, &value, sizeof result);
    return result;
}
#endif

/* The upper 16 bits of the result are `value` as bfloat16, rounded to nearest, ties to even.
 * Infinity and the NaNs that arithmetic produces are preserved. */
INLINE Bits rounded(Lanes value) {
    const Bits raw = bits(value);
    return raw + 0x7fff + ((raw >> 16) & 1);
}

/* Store pairs of one element of `first` (lower half) and one of `second` (upper half). */
INLINE void store_pairs(float *to, Lanes first, Lanes second) {
    const Bits both = (rounded(first) >> 16) | (rounded(second) & 0xffff0000u);
#if defined(__GNUC__)
    *(LooseBits *)to = both;
#else
    memcpy(to, &both, sizeof both);
#endif
}

/* Store pairs of adjacent elements; `channel` is an offset in bfloat16 elements, two per float. */
INLINE void store_neighbours(float *to, ptrdiff_t channel, Lanes value) {
#if defined(__GNUC__)
    *(Halves *)((uint16_t *)to + channel) = __builtin_convertvector(rounded(value) >> 16, Halves);
#else
    const uint16_t half = (uint16_t)(rounded(value) >> 16);
    memcpy((char *)to + 2 * channel, &half, sizeof half);
#endif
}

FOR_EACH_CPU void tiles_input_bfloat16(const Plan *p, ptrdiff_t first, ptrdiff_t count,
                                       Images x, float *v, Layout at) {
    for (ptrdiff_t t = first; t < first + count; t++, v += at.tile) {
        Square square;
        find_inputs(p, t, x, &square);
        for (ptrdiff_t c = 0; c < p->channels; c += LANES) {
            Lanes d[POINTS];
            input_transform(&square, x.place != NULL, c, d);
            for (int i = 0; i < POINTS; i++) store_neighbours(v + i * at.point, c, d[i]);
        }
    }
}

FOR_EACH_CPU void tiles_input_pairs(const Plan *p, ptrdiff_t first, ptrdiff_t count,
                                    Images x, float *v, Layout at) {
    for (ptrdiff_t t = first; t < first + count; t += 2, v += at.tile) {
        Square square[2];
        const int both = t + 1 < first + count, cells = x.place != NULL;
        find_inputs(p, t, x, square);
        if (both) find_inputs(p, t + 1, x, square + 1);
        for (ptrdiff_t c = 0; c < p->channels; c += LANES) {
            float *to = v + c / GROUP * at.group + c % GROUP;
            Lanes d[2][POINTS];
            input_transform(square, cells, c, d[0]);
            if (both)
                input_transform(square + 1, cells, c, d[1]);
            else
                memset(d[1], 0, sizeof d[1]);
            for (int i = 0; i < POINTS; i++) store_pairs(to + i * at.point, d[0][i], d[1][i]);
        }
    }
}

FOR_EACH_CPU void tiles_gradient_pairs(const Plan *p, ptrdiff_t first, ptrdiff_t count,
                                       Images g, float *e, Layout at) {
    for (ptrdiff_t t = first; t < first + count; t += 2, e += at.tile) {
        Square square[2];
        const int both = t + 1 < first + count, cells = g.place != NULL;
        find_gradients(p, t, g, square);
        if (both) find_gradients(p, t + 1, g, square + 1);
        for (ptrdiff_t c = 0; c < p->channels; c += LANES) {
            float *to = e + c / GROUP * at.group + c % GROUP;
            Lanes d[2][POINTS];
            gradient_transform(square, cells, c, d[0]);
            if (both)
                gradient_transform(square + 1, cells, c, d[1]);
            else
                memset(d[1], 0, sizeof d[1]);
            for (int i = 0; i < POINTS; i++) store_pairs(to + i * at.point, d[0][i], d[1][i]);
        }
    }
}

FOR_EACH_CPU void filters_transform_bfloat16(const Filters *f, ptrdiff_t output, ptrdiff_t input,
                                             float *u, ptrdiff_t point) {
    const ptrdiff_t inputs = f->inputs - input < SOME ? f->inputs - input : SOME;
    Weights square;
    collect(f, output, input, inputs, square);
    for (ptrdiff_t k = 0; k < inputs; k += 2) {
        float *to = u + (input + k) / 2 * GROUP;
        for (ptrdiff_t n = 0; n < GROUP; n += LANES) {
            Lanes first[POINTS], second[POINTS];
            filter_transform(square, k, n, first);
            filter_transform(square, k + 1, n, second);
            for (int i = 0; i < POINTS; i++) store_pairs(to + i * point + n, first[i], second[i]);
        }
    }
}
