// The reconstruction error: see `ops::recon_error`. `weight` may be null.
#include "sums.h"

DEVICE float difference(const float *y, const float *target, const float *weight, u64 i) {
    float d = y[i] - target[i];
    return weight ? d * weight[i] : d;
}

DEVICE float error_of(float d, float p) {
    return p == 2.0f ? d * d : power(d, p);
}

KERNEL recon_error(const float *y, const float *target, const float *weight, double *partial, float p, u64 n) {
    BLOCK_PARTIAL(i, n, partial, error_of(difference(y, target, weight, i), p))
}

// upstream * factor * |d|^(p-1) sign(d), times the weight.
KERNEL recon_error_gradient(const float *y, const float *target, const float *weight, const float *upstream, float *g, float p,
                            float factor, u64 n) {
    EACH(i, n) {
        float d = difference(y, target, weight, i);
        float slope = p == 2.0f ? d : copysignf(power(d, p - 1.0f), d);
        float of_d = *upstream * factor * slope;
        g[i] = weight ? of_d * weight[i] : of_d;
    }
}
