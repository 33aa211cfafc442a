// One step of an unrolled Adam and its adjoint, in double precision: see `ops::virtual_step`.
#include "sums.h"

#define BETA_1 0.9
#define BETA_2 0.999

KERNEL adam_step(const double *theta, const double *g, const double *lr, const double *m, const double *v, double *theta_out,
                 double *m_out, double *v_out, double factor, double eps, u64 n) {
    EACH(i, n) {
        double of_m = BETA_1 * m[i] + (1.0 - BETA_1) * g[i];
        double of_v = BETA_2 * v[i] + (1.0 - BETA_2) * g[i] * g[i];
        m_out[i] = of_m;
        v_out[i] = of_v;
        theta_out[i] = theta[i] - lr[i] * factor * of_m / (sqrt(of_v) + eps);
    }
}

// m and v are those after the step, of_m and of_v the derivatives with respect to them.
KERNEL adam_adjoint(const double *adjoint, const double *g, const double *lr, const double *m, const double *v, const double *of_m,
                    const double *of_v, double *u, double *of_m_out, double *of_v_out, double factor, double eps, u64 n) {
    EACH(i, n) {
        double root = sqrt(v[i]);
        double scaled = -lr[i] * factor * adjoint[i];
        double shifted = root + eps;
        double through_m = of_m[i] + scaled / shifted;
        double through_v = of_v[i] + (root > 0.0 ? -scaled * m[i] / (shifted * shifted * 2.0 * root) : 0.0);
        of_m_out[i] = BETA_1 * through_m;
        of_v_out[i] = BETA_2 * through_v;
        u[i] = (1.0 - BETA_1) * through_m + (1.0 - BETA_2) * 2.0 * g[i] * through_v;
    }
}

// partial[block] = the largest |x| of the block.
KERNEL largest_of_blocks(const double *x, double *partial, u64 n) {
    SHARED double most[BLOCK_THREADS];
    THREADS(t) {
        double found = 0.0;
        u64 start = (u64)blockIdx.x * BLOCK_ELEMENTS;
        for (u64 i = start + t; i < start + BLOCK_ELEMENTS && i < n; i += BLOCK_THREADS) found = fmax(found, fabs(x[i]));
        most[t] = found;
    }
    BARRIER;
    THREADS(t) {
        if (t == 0) {
            double found = 0.0;
            for (u32 i = 0; i < BLOCK_THREADS; ++i) found = fmax(found, most[i]);
            partial[blockIdx.x] = found;
        }
    }
}

// One block: size = the largest of the partial results, 1 where all are 0.
KERNEL largest(const double *partial, double *size, u32 blocks) {
    SHARED double most[BLOCK_THREADS];
    THREADS(t) {
        double found = 0.0;
        for (u32 i = t; i < blocks; i += BLOCK_THREADS) found = fmax(found, partial[i]);
        most[t] = found;
    }
    BARRIER;
    THREADS(t) {
        if (t == 0) {
            double found = 0.0;
            for (u32 i = 0; i < BLOCK_THREADS; ++i) found = fmax(found, most[i]);
            *size = found == 0.0 ? 1.0 : found;
        }
    }
}

KERNEL divide(const double *x, const double *size, double *y, u64 n) {
    EACH(i, n) y[i] = x[i] / *size;
}
