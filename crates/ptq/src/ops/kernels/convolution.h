// Sizes of a convolution, as kernels take them.
#pragma once
#include "launch.h"

struct Sizes {
    u32 channels, h, w, out_h, out_w, k_h, k_w, stride, top, left;
};

// The sum of `term(a, b, i, j, sum)` over what makes use of one input pixel: tap (a, b) of the window of output (i, j), with s i = row + top - a.
// Of one stride, which the compiler knows, or of any (0).
template <u32 STRIDE, typename Term>
DEVICE float sum_over_uses(u32 row, u32 column, Sizes sizes, Term term) {
    u32 stride = STRIDE ? STRIDE : sizes.stride;
    u32 below = row + sizes.top, behind = column + sizes.left;
    // Only every stride-th tap meets an output, and from one of these to the next the output is the one before.
    u32 first_a = below % stride, first_b = behind % stride, last_i = below / stride, last_j = behind / stride;
    float sum = 0.0f;
    for (u32 a = first_a, i = last_i; a < sizes.k_h; a += stride, --i) {
        // Unsigned: before the first output comes a number larger than any.
        if (i >= sizes.out_h) continue;
        for (u32 b = first_b, j = last_j; b < sizes.k_w; b += stride, --j) {
            if (j < sizes.out_w) sum = term(a, b, i, j, sum);
        }
    }
    return sum;
}
