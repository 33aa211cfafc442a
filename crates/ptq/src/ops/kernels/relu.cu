// Rectified linear units, biases and factors: see `ops::relu` and `ops::channels`. NaN stays NaN.
#include "launch.h"

KERNEL clipped_relu(const float *x, float *y, float upper, u64 n) {
    EACH(i, n) y[i] = bounded(x[i], 0.0f, upper);
}

KERNEL clipped_relu_of_sum(const float *a, const float *b, float *y, float upper, u64 n) {
    EACH(i, n) y[i] = bounded(a[i] + b[i], 0.0f, upper);
}

KERNEL gate(const float *t, const float *y, float *gated, float upper, u64 n) {
    EACH(i, n) gated[i] = y[i] > 0.0f && y[i] < upper ? t[i] : 0.0f;
}

// y[n, c, ...] = x[n, c, ...] + bias[c], rectified where `rectify`; `y` may be `x`.
KERNEL add_bias(const float *x, const float *bias, float *y, u32 pixels, u32 channels, u32 rectify, float upper, u64 n) {
    EACH(i, n) {
        float sum = x[i] + bias[rest(quotient(i, pixels), channels)];
        y[i] = rectify ? bounded(sum, 0.0f, upper) : sum;
    }
}

// y[r, ...] = x[r, ...] * factors[r].
KERNEL scale_rows(const float *x, const float *factors, float *y, u32 per_row, u64 n) {
    EACH(i, n) y[i] = x[i] * factors[quotient(i, per_row)];
}

// sums[c] = sum of x[n, c, ...]: one block for each channel.
KERNEL channel_sums(const float *x, float *sums, u32 pixels, u32 channels, u32 images) {
    SHARED double partial[BLOCK_THREADS];
    u32 channel = blockIdx.x;
    u64 count = (u64)images * pixels;
    THREADS(t) {
        double sum = 0.0;
        for (u64 i = t; i < count; i += BLOCK_THREADS) sum += x[(quotient(i, pixels) * channels + channel) * pixels + rest(i, pixels)];
        partial[t] = sum;
    }
    double sum = block_sum(partial);
    THREADS(t) {
        if (t == 0) sums[channel] = (float)sum;
    }
}
