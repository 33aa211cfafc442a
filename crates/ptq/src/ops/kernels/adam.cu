// One step of Adam in place: see `ops::adam`.
#include "launch.h"

KERNEL adam(float *p, float *m, float *v, const float *g, float step_size, float correction, u64 n) {
    EACH(i, n) {
        m[i] = 0.9f * m[i] + 0.1f * g[i];
        v[i] = 0.999f * v[i] + 0.001f * (g[i] * g[i]);
        p[i] -= step_size * (m[i] / (sqrtf(v[i]) / correction + 1e-8f));
    }
}
