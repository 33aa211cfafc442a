// Pixels under the windows of a convolution as the columns of a matrix, and back: see `ops::cuda::products`.
#include "convolution.h"

// columns[n, c, a, b, i, j] = x[n, c, s i + a - top, s j + b - left], 0 outside; `n` elements of columns.
KERNEL im2col(const float *x, float *columns, Sizes sizes, u64 n) {
    EACH(at, n) {
        u64 line = quotient(at, sizes.out_w), tap = quotient(line, sizes.out_h), tap_row = quotient(tap, sizes.k_w);
        u32 j = rest(at, sizes.out_w), i = rest(line, sizes.out_h), b = rest(tap, sizes.k_w), a = rest(tap_row, sizes.k_h);
        u64 plane = quotient(tap_row, sizes.k_h);
        u32 row = i * sizes.stride + a - sizes.top, column = j * sizes.stride + b - sizes.left;
        // Unsigned: what lies above or left of the image is larger than any index.
        bool inside = row < sizes.h && column < sizes.w;
        columns[at] = inside ? x[(plane * sizes.h + row) * sizes.w + column] : 0.0f;
    }
}

// x[n, c, row, column] = the sum of all columns[n, c, a, b, i, j] that are made of it, in the order of a and b; `n` elements of x.
KERNEL col2im(const float *columns, float *x, Sizes sizes, u64 n) {
    EACH(at, n) {
        u64 line = quotient(at, sizes.w), plane = quotient(line, sizes.h);
        x[at] = sum_over_uses<0>(rest(line, sizes.h), rest(at, sizes.w), sizes, [=](u32 a, u32 b, u32 i, u32 j, float sum) {
            return sum + columns[(((plane * sizes.k_h + a) * sizes.k_w + b) * sizes.out_h + i) * sizes.out_w + j];
        });
    }
}
