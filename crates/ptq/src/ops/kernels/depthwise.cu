// Depthwise convolution and its two gradients: see `ops::conv`. Channel c of the input makes channel c of the output.
#include "convolution.h"

// What one output value sums up; of 3x3 windows, the most common ones, with loops that the compiler knows.
template <u32 KNOWN>
DEVICE float window_sum(const float *from, const float *taps, u32 i, u32 j, Sizes sizes) {
    u32 k_h = KNOWN ? KNOWN : sizes.k_h, k_w = KNOWN ? KNOWN : sizes.k_w;
    float sum = 0.0f;
    UNROLL for (u32 a = 0; a < k_h; ++a) {
        u32 row = i * sizes.stride + a - sizes.top;
        UNROLL for (u32 b = 0; b < k_w; ++b) {
            u32 column = j * sizes.stride + b - sizes.left;
            // Unsigned: what lies above or left of the image is larger than any index.
            if (row < sizes.h && column < sizes.w) sum = fmaf(taps[a * k_w + b], from[row * sizes.w + column], sum);
        }
    }
    return sum;
}

// y[n, c, i, j] = sum over a, b of w[c, a, b] x[n, c, s i + a - top, s j + b - left].
KERNEL depthwise_forward(const float *x, const float *weight, float *y, Sizes sizes, u64 n) {
    EACH(at, n) {
        u64 line = quotient(at, sizes.out_w), plane = quotient(line, sizes.out_h);
        u32 j = rest(at, sizes.out_w), i = rest(line, sizes.out_h);
        const float *from = x + plane * sizes.h * sizes.w;
        const float *taps = weight + rest(plane, sizes.channels) * sizes.k_h * sizes.k_w;
        y[at] = sizes.k_h == 3 && sizes.k_w == 3 ? window_sum<3>(from, taps, i, j, sizes)
                                                 : window_sum<0>(from, taps, i, j, sizes);
    }
}

// What one input value gets back from the outputs whose windows hold it.
template <u32 STRIDE>
DEVICE float gradient_sum(const float *from, const float *taps, u32 row, u32 column, Sizes sizes) {
    return sum_over_uses<STRIDE>(row, column, sizes, [=](u32 a, u32 b, u32 i, u32 j, float sum) {
        return fmaf(taps[a * sizes.k_w + b], from[i * sizes.out_w + j], sum);
    });
}

KERNEL depthwise_input_gradient(const float *gy, const float *weight, float *gx, Sizes sizes, u64 n) {
    EACH(at, n) {
        u64 line = quotient(at, sizes.w), plane = quotient(line, sizes.h);
        u32 column = rest(at, sizes.w), row = rest(line, sizes.h);
        const float *from = gy + plane * sizes.out_h * sizes.out_w;
        const float *taps = weight + rest(plane, sizes.channels) * sizes.k_h * sizes.k_w;
        gx[at] = sizes.stride == 1   ? gradient_sum<1>(from, taps, row, column, sizes)
                 : sizes.stride == 2 ? gradient_sum<2>(from, taps, row, column, sizes)
                                     : gradient_sum<0>(from, taps, row, column, sizes);
    }
}

// The taps `first` to `first` + 9 of one plane: of_image[plane, tap] = sum over i, j of gy[i, j] x[s i + a - top, s j + b - left].
DEVICE void nine_taps(const float *from, const float *g, float *of_image, u32 first, Sizes sizes) {
    SHARED double sums[BLOCK_THREADS];
    SHARED float of_threads[9][BLOCK_THREADS];
    u32 pixels = sizes.out_h * sizes.out_w, taps = sizes.k_h * sizes.k_w;
    THREADS(t) {
        float sum[9] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        // 64 bits: the step after the last pixel must not start again at the first.
        for (u64 i = t; i < pixels; i += BLOCK_THREADS) {
            u32 pixel = (u32)i;
            u32 top = pixel / sizes.out_w * sizes.stride - sizes.top;
            u32 left = pixel % sizes.out_w * sizes.stride - sizes.left;
            float of_pixel = g[pixel];
            UNROLL for (u32 at = 0; at < 9; ++at) {
                u32 tap = first + at, row = top + tap / sizes.k_w, column = left + tap % sizes.k_w;
                if (tap < taps && row < sizes.h && column < sizes.w) {
                    sum[at] = fmaf(of_pixel, from[row * sizes.w + column], sum[at]);
                }
            }
        }
        for (u32 at = 0; at < 9; ++at) of_threads[at][t] = sum[at];
    }
    for (u32 at = 0; at < 9 && first + at < taps; ++at) {
        BARRIER;
        THREADS(t) sums[t] = of_threads[at][t];
        double total = block_sum(sums);
        THREADS(t) {
            if (t == 0) of_image[first + at] = (float)total;
        }
    }
    BARRIER;
}

// One block for each plane, blockIdx.x = n * C + c; what images leave is added up by `add_images`.
KERNEL depthwise_weight_gradient(const float *x, const float *gy, float *of_images, Sizes sizes) {
    u64 plane = blockIdx.x;
    u32 taps = sizes.k_h * sizes.k_w;
    for (u32 first = 0; first < taps; first += 9) {
        nine_taps(x + plane * sizes.h * sizes.w, gy + plane * sizes.out_h * sizes.out_w, of_images + plane * taps, first, sizes);
    }
}
