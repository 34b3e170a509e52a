/* The Winograd transforms of whole tiles in float32: see winograd_transforms.h. */
#include "winograd_transforms.h"

FOR_EACH_CPU void tiles_input(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images x,
                              float *v, Layout at) {
    for (ptrdiff_t t = first; t < first + count; t++, v += at.tile) {
        Square square;
        find_inputs(p, t, x, &square);
        for (ptrdiff_t c = 0; c < p->channels; c += LANES) {
            float *to = v + c / GROUP * at.group + c % GROUP;
            Lanes d[POINTS];
            input_transform(&square, x.place != NULL, c, d);
            for (int i = 0; i < POINTS; i++) store(to + i * at.point, d[i]);
        }
    }
}

FOR_EACH_CPU void tiles_gradient(const Plan *p, ptrdiff_t first, ptrdiff_t count, Images g,
                                 float *e, Layout at) {
    for (ptrdiff_t t = first; t < first + count; t++, e += at.tile) {
        Square square;
        find_gradients(p, t, g, &square);
        for (ptrdiff_t c = 0; c < p->channels; c += LANES) {
            float *to = e + c / GROUP * at.group + c % GROUP;
            Lanes out[POINTS];
            gradient_transform(&square, g.place != NULL, c, out);
            for (int i = 0; i < POINTS; i++) store(to + i * at.point, out[i]);
        }
    }
}

FOR_EACH_CPU void tiles_output(const Plan *p, ptrdiff_t first, ptrdiff_t count, ptrdiff_t channel,
                               const float *m, ptrdiff_t point, float *y) {
    const ptrdiff_t left_over = p->channels - channel;
    const ptrdiff_t channels = left_over < GROUP ? left_over : GROUP;
    for (ptrdiff_t t = first; t < first + count; t++, m += GROUP) {
        const ptrdiff_t row = t / p->columns, image = row / p->rows;
        const ptrdiff_t top = row % p->rows * OUT, left = t % p->columns * OUT;
        const int high = p->height - top < OUT ? (int)(p->height - top) : OUT;
        const int wide = p->width - left < OUT ? (int)(p->width - left) : OUT;
        float *corner = y + ((image * p->height + top) * p->width + left) * p->channels + channel;
        for (ptrdiff_t c = 0; c < channels; c += LANES) {
            Lanes out[OUT * OUT];
            output_transform(m + c, point, out);
            for (int i = 0; i < high; i++)
                for (int j = 0; j < wide; j++)
                    store(corner + (i * p->width + j) * p->channels + c, out[OUT * i + j]);
        }
    }
}

FOR_EACH_CPU void tiles_output_pooled(const Plan *p, ptrdiff_t first, ptrdiff_t count,
                                      ptrdiff_t channel, const float *m, ptrdiff_t point, float *y,
                                      uint8_t *place) {
    const ptrdiff_t left_over = p->channels - channel;
    const ptrdiff_t channels = left_over < GROUP ? left_over : GROUP;
    const ptrdiff_t height = p->height / 2, width = p->width / 2;
    for (ptrdiff_t t = first; t < first + count; t++, m += GROUP) {
        const ptrdiff_t row = t / p->columns, image = row / p->rows;
        const ptrdiff_t top = row % p->rows * (OUT / 2), left = t % p->columns * (OUT / 2);
        const ptrdiff_t corner =
            ((image * height + top) * width + left) * p->channels + channel;
        for (ptrdiff_t c = 0; c < channels; c += LANES) {
            Lanes out[OUT * OUT];
            output_transform(m + c, point, out);
            for (int i = 0; i < OUT / 2 && top + i < height; i++) {
                for (int j = 0; j < OUT / 2 && left + j < width; j++) {
                    const ptrdiff_t at = corner + (i * width + j) * p->channels + c;
                    const Lanes *cell = out + 2 * (OUT * i + j);
                    largest(cell[0], cell[1], cell[OUT], cell[OUT + 1], y + at, place + at);
                }
            }
        }
    }
}

FOR_EACH_CPU void filters_transform(const Filters *f, ptrdiff_t output, ptrdiff_t input, float *u,
                                    ptrdiff_t point) {
    const ptrdiff_t inputs = f->inputs - input < SOME ? f->inputs - input : SOME;
    Weights square;
    collect(f, output, input, inputs, square);
    for (ptrdiff_t k = 0; k < inputs; k++) {
        for (ptrdiff_t n = 0; n < GROUP; n += LANES) {
            Lanes out[POINTS];
            filter_transform(square, k, n, out);
            for (int i = 0; i < POINTS; i++) store(u + i * point + (input + k) * GROUP + n, out[i]);
        }
    }
}

FOR_EACH_CPU void filters_gradient(const float *u, ptrdiff_t point, ptrdiff_t channels,
                                   ptrdiff_t inputs, float *to) {
    for (ptrdiff_t c = 0; c < channels; c += LANES) {
        Lanes d[POINTS], half[FILTER * IN], out[FILTER * FILTER];
        for (int i = 0; i < POINTS; i++) d[i] = load(u + i * point + c);
        for (int j = 0; j < IN; j++) times_g_transposed(d + j, IN, half + j);
        for (int i = 0; i < FILTER; i++) times_g_transposed(half + IN * i, 1, out + FILTER * i);
        for (int i = 0; i < FILTER * FILTER; i++) store(to + i * inputs + c, out[i]);
    }
}
