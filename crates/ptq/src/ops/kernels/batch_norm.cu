// BatchNorm in training mode: see `ops::batch_norm`. A channel is summed up by several blocks, each over one part of its values.
#include "launch.h"

// Values of a channel that one block sums up.
#define PART 8192

struct Batch {
    u32 images, channels, pixels;
};

// Where value `i` of a channel lies.
DEVICE u64 position(Batch batch, u32 channel, u64 i) {
    return (quotient(i, batch.pixels) * batch.channels + channel) * batch.pixels + rest(i, batch.pixels);
}

DEVICE u32 parts_of(Batch batch) {
    return (u32)(((u64)batch.images * batch.pixels + PART - 1) / PART);
}

// The sum of the numbers that the parts of a channel left.
DEVICE double sum_of_parts(const double *of_parts, u64 channel, Batch batch) {
    u32 parts = parts_of(batch);
    double sum = 0.0;
    for (u32 part = 0; part < parts; ++part) sum += of_parts[channel * parts + part];
    return sum;
}

// running <- (1 - momentum) running + momentum batch.
KERNEL blend(float *running, const float *batch, float momentum, u64 n) {
    EACH(i, n) running[i] = running[i] * (1.0f - momentum) + batch[i] * momentum;
}

// Sums of x and of its squares over each part: blockIdx.x = channel * parts + part.
KERNEL batch_sums(const float *x, double *sums, double *squares, Batch batch) {
    SHARED double of_x[BLOCK_THREADS], of_square[BLOCK_THREADS];
    u32 parts = parts_of(batch), channel = blockIdx.x / parts;
    u64 start = (u64)(blockIdx.x % parts) * PART, count = (u64)batch.images * batch.pixels;
    THREADS(t) {
        double sum = 0.0, square = 0.0;
        for (u64 i = start + t; i < start + PART && i < count; i += BLOCK_THREADS) {
            double value = x[position(batch, channel, i)];
            sum += value;
            square += value * value;
        }
        of_x[t] = sum;
        of_square[t] = square;
    }
    double sum = block_sum(of_x), square = block_sum(of_square);
    THREADS(t) {
        if (t == 0) {
            sums[blockIdx.x] = sum;
            squares[blockIdx.x] = square;
        }
    }
}

// Mean, 1 / sqrt(var + eps) and the unbiased variance of each channel from the sums of its parts.
KERNEL batch_statistics(const double *sums, const double *squares, float *mean, float *inverse_std, float *unbiased, double eps,
                        Batch batch, u64 n) {
    EACH(channel, n) {
        double count = (double)batch.images * batch.pixels;
        double average = sum_of_parts(sums, channel, batch) / count;
        double var = sum_of_parts(squares, channel, batch) / count - average * average;
        // Rounding must not make it negative; NaN stays.
        var = var <= 0.0 ? 0.0 : var;
        mean[channel] = (float)average;
        inverse_std[channel] = (float)(1.0 / sqrt(var + eps));
        unbiased[channel] = (float)(count > 1.0 ? var * count / (count - 1.0) : var * count);
    }
}

KERNEL batch_norm(const float *x, const float *mean, const float *inverse_std, const float *weight, const float *bias, float *y,
                  Batch batch, u64 n) {
    EACH(i, n) {
        u32 c = rest(quotient(i, batch.pixels), batch.channels);
        y[i] = (x[i] - mean[c]) * inverse_std[c] * weight[c] + bias[c];
    }
}

// Sums of g and of g z over each part, z the normalised input.
KERNEL batch_gradient_sums(const float *x, const float *g, const float *mean, const float *inverse_std, double *sums,
                           double *products, Batch batch) {
    SHARED double of_g[BLOCK_THREADS], of_gz[BLOCK_THREADS];
    u32 parts = parts_of(batch), channel = blockIdx.x / parts;
    u64 start = (u64)(blockIdx.x % parts) * PART, count = (u64)batch.images * batch.pixels;
    THREADS(t) {
        double sum = 0.0, product = 0.0;
        for (u64 i = start + t; i < start + PART && i < count; i += BLOCK_THREADS) {
            u64 at = position(batch, channel, i);
            sum += g[at];
            product += g[at] * ((x[at] - mean[channel]) * inverse_std[channel]);
        }
        of_g[t] = sum;
        of_gz[t] = product;
    }
    double sum = block_sum(of_g), product = block_sum(of_gz);
    THREADS(t) {
        if (t == 0) {
            sums[blockIdx.x] = sum;
            products[blockIdx.x] = product;
        }
    }
}

// Gradients of bias and weight: the sums of all parts of a channel.
KERNEL batch_parameter_gradients(const double *sums, const double *products, float *g_bias, float *g_weight, Batch batch, u64 n) {
    EACH(channel, n) {
        g_bias[channel] = (float)sum_of_parts(sums, channel, batch);
        g_weight[channel] = (float)sum_of_parts(products, channel, batch);
    }
}

// weight / std * (g - mean(g) - z mean(g z)).
KERNEL batch_input_gradient(const float *x, const float *g, const float *mean, const float *inverse_std, const float *weight,
                            const float *g_bias, const float *g_weight, float *g_x, Batch batch, u64 n) {
    EACH(i, n) {
        u32 c = rest(quotient(i, batch.pixels), batch.channels);
        float count = (float)batch.images * batch.pixels;
        float z = (x[i] - mean[c]) * inverse_std[c];
        g_x[i] = weight[c] * inverse_std[c] * (g[i] - g_bias[c] / count - z * (g_weight[c] / count));
    }
}
