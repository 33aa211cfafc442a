// Values that change places: see `ops::layout`.
#include "launch.h"

// y[n, c, 2i + a, 2j + b] = x[n, 4c + 2a + b, i, j] for x of `h` by `w` pixels; `n` elements.
KERNEL pixels_from_channels(const float *x, float *y, u32 h, u32 w, u64 n) {
    EACH(at, n) {
        u64 line = quotient(at, 2 * w), plane = quotient(line, 2 * h);
        u32 column = rest(at, 2 * w), row = rest(line, 2 * h);
        y[at] = x[((plane * 4 + 2 * (row % 2) + column % 2) * h + row / 2) * w + column / 2];
    }
}

// The inverse: y[n, 4c + 2a + b, i, j] = x[n, c, 2i + a, 2j + b] for y of `h` by `w` pixels.
KERNEL channels_from_pixels(const float *x, float *y, u32 h, u32 w, u64 n) {
    EACH(at, n) {
        u64 line = quotient(at, w), plane = quotient(line, h);
        u32 column = rest(at, w), row = rest(line, h), corner = rest(plane, 4);
        y[at] = x[(quotient(plane, 4) * 2 * h + 2 * row + corner / 2) * 2 * w + 2 * column + corner % 2];
    }
}

// Images of `of_a` values beside images of `of_b`.
KERNEL joined(const float *a, const float *b, float *y, u32 of_a, u32 of_b, u64 n) {
    EACH(at, n) {
        u64 image = quotient(at, of_a + of_b);
        u32 within = rest(at, of_a + of_b);
        y[at] = within < of_a ? a[image * of_a + within] : b[image * of_b + within - of_a];
    }
}
