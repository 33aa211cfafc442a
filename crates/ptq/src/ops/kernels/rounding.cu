// Soft and hard rounding of weights and the regulariser: see `ops::rounding`.
#include "sums.h"

#define STRETCH 1.2f
#define SHIFT (-0.1f)

DEVICE float stretched_sigmoid(float alpha) {
    return STRETCH / (1.0f + expf(-alpha)) + SHIFT;
}

KERNEL soft_weight(const float *alpha, const float *scale, const float *floor, const float *zero_point, float *w, float highest,
                   u32 per_channel, u64 n) {
    EACH(i, n) {
        u32 c = (u32)quotient(i, per_channel);
        float q = floor[i] + bounded(stretched_sigmoid(alpha[i]), 0.0f, 1.0f) + zero_point[c];
        w[i] = (bounded(q, 0.0f, highest) - zero_point[c]) * scale[c];
    }
}

KERNEL hard_weight(const float *alpha, const float *scale, const float *floor, const float *zero_point, float *w, float highest,
                   u32 per_channel, u64 n) {
    EACH(i, n) {
        u32 c = (u32)quotient(i, per_channel);
        float q = floor[i] + (alpha[i] < 0.0f ? 0.0f : alpha[i] >= 0.0f ? 1.0f : alpha[i]) + zero_point[c];
        w[i] = (bounded(q, 0.0f, highest) - zero_point[c]) * scale[c];
    }
}

DEVICE double penalty_of(float alpha, float beta) {
    float u = 2.0f * bounded(stretched_sigmoid(alpha), 0.0f, 1.0f) - 1.0f;
    return 1.0f - power(u, beta);
}

// sum of 1 - |2 h - 1|^beta.
KERNEL rounding_penalty(const float *alpha, double *partial, float beta, u64 n) {
    BLOCK_PARTIAL(i, n, partial, penalty_of(alpha[i], beta))
}

// One block for each channel. `weight` is that of the regulariser, 0 where there is none.
KERNEL soft_weight_gradient(const float *alpha, const float *scale, const float *floor, const float *zero_point, const float *g,
                            float *g_alpha, float *g_scale, float highest, u32 per_channel, float beta, float weight) {
    SHARED double sums[BLOCK_THREADS];
    u32 c = blockIdx.x;
    u64 start = (u64)c * per_channel;
    THREADS(t) {
        double sum = 0.0;
        for (u64 i = start + t; i < start + per_channel; i += BLOCK_THREADS) {
            float r = stretched_sigmoid(alpha[i]);
            bool r_inside = r >= 0.0f && r <= 1.0f;
            float q = floor[i] + bounded(r, 0.0f, 1.0f) + zero_point[c];
            float of_r = r_inside && q >= 0.0f && q <= highest ? g[i] * scale[c] : 0.0f;
            sum += g[i] * (bounded(q, 0.0f, highest) - zero_point[c]);
            if (weight != 0.0f && r_inside) {
                float u = 2.0f * r - 1.0f;
                of_r -= 2.0f * weight * beta * copysignf(power(u, beta - 1.0f), u);
            }
            float s = (r - SHIFT) / STRETCH;
            g_alpha[i] = of_r * STRETCH * s * (1.0f - s);
        }
        sums[t] = sum;
    }
    double sum = block_sum(sums);
    THREADS(t) {
        if (t == 0) g_scale[c] = (float)sum;
    }
}
