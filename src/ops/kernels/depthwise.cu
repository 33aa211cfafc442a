// Depthwise convolution and its two gradients: see `ops::conv`. Channel c of the input makes channel c of the output.
#include "launch.h"

struct Sizes {
    u32 images, channels, h, w, out_h, out_w, k_h, k_w, stride, padding;
};

// y[n, c, i, j] = sum over a, b of w[c, a, b] x[n, c, s i + a - p, s j + b - p].
KERNEL depthwise_forward(const float *x, const float *weight, float *y, Sizes sizes, u64 n) {
    EACH(at, n) {
        u64 line = quotient(at, sizes.out_w), plane = quotient(line, sizes.out_h);
        u32 j = rest(at, sizes.out_w), i = rest(line, sizes.out_h);
        const float *from = x + plane * sizes.h * sizes.w;
        const float *taps = weight + rest(plane, sizes.channels) * sizes.k_h * sizes.k_w;
        float sum = 0.0f;
        for (u32 a = 0; a < sizes.k_h; ++a) {
            u32 row = i * sizes.stride + a - sizes.padding;
            // Unsigned: what lies above or left of the image is larger than any index.
            if (row >= sizes.h) continue;
            for (u32 b = 0; b < sizes.k_w; ++b) {
                u32 column = j * sizes.stride + b - sizes.padding;
                if (column < sizes.w) sum = fmaf(taps[a * sizes.k_w + b], from[row * sizes.w + column], sum);
            }
        }
        y[at] = sum;
    }
}

KERNEL depthwise_input_gradient(const float *gy, const float *weight, float *gx, Sizes sizes, u64 n) {
    EACH(at, n) {
        u64 line = quotient(at, sizes.w), plane = quotient(line, sizes.h);
        u32 column = rest(at, sizes.w), row = rest(line, sizes.h);
        const float *from = gy + plane * sizes.out_h * sizes.out_w;
        const float *taps = weight + rest(plane, sizes.channels) * sizes.k_h * sizes.k_w;
        float sum = 0.0f;
        for (u32 a = 0; a < sizes.k_h; ++a) {
            u32 below = row + sizes.padding - a;
            u32 i = below / sizes.stride;
            if (row + sizes.padding < a || below % sizes.stride || i >= sizes.out_h) continue;
            for (u32 b = 0; b < sizes.k_w; ++b) {
                u32 behind = column + sizes.padding - b;
                u32 j = behind / sizes.stride;
                if (column + sizes.padding < b || behind % sizes.stride || j >= sizes.out_w) continue;
                sum = fmaf(taps[a * sizes.k_w + b], from[i * sizes.out_w + j], sum);
            }
        }
        gx[at] = sum;
    }
}

// One block for each tap of each channel: blockIdx.x = (c * K_h + a) * K_w + b.
KERNEL depthwise_weight_gradient(const float *x, const float *gy, float *gw, Sizes sizes) {
    SHARED double sums[BLOCK_THREADS];
    u32 b = blockIdx.x % sizes.k_w, a = blockIdx.x / sizes.k_w % sizes.k_h, c = blockIdx.x / sizes.k_w / sizes.k_h;
    u32 pixels = sizes.out_h * sizes.out_w;
    THREADS(t) {
        double total = 0.0;
        for (u32 image = 0; image < sizes.images; ++image) {
            u64 plane = (u64)image * sizes.channels + c;
            const float *from = x + plane * sizes.h * sizes.w, *g = gy + plane * pixels;
            float sum = 0.0f;
            for (u32 pixel = t; pixel < pixels; pixel += BLOCK_THREADS) {
                u32 row = pixel / sizes.out_w * sizes.stride + a - sizes.padding;
                u32 column = pixel % sizes.out_w * sizes.stride + b - sizes.padding;
                if (row < sizes.h && column < sizes.w) sum = fmaf(g[pixel], from[row * sizes.w + column], sum);
            }
            total += sum;
        }
        sums[t] = total;
    }
    double total = block_sum(sums);
    THREADS(t) {
        if (t == 0) gw[blockIdx.x] = (float)total;
    }
}
