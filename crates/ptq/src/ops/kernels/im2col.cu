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
        u32 below = rest(line, sizes.h) + sizes.top, behind = rest(at, sizes.w) + sizes.left;
        // Only every stride-th tap meets an output, and from one of these to the next the output is the one before.
        u32 first_a = below % sizes.stride, first_b = behind % sizes.stride;
        float sum = 0.0f;
        for (u32 a = first_a, i = below / sizes.stride; a < sizes.k_h; a += sizes.stride, --i) {
            // Unsigned: before the first output comes a number larger than any.
            if (i >= sizes.out_h) continue;
            for (u32 b = first_b, j = behind / sizes.stride; b < sizes.k_w; b += sizes.stride, --j) {
                if (j >= sizes.out_w) continue;
                sum += columns[(((plane * sizes.k_h + a) * sizes.k_w + b) * sizes.out_h + i) * sizes.out_w + j];
            }
        }
        x[at] = sum;
    }
}
