// One step of Adam in place, of several parameters: see `ops::adam`.
#include "launch.h"

// As many as fit into the 4 KiB that the arguments of a kernel may take.
#define MOST 64

struct Parameters {
    float *p[MOST];
    float *m[MOST];
    float *v[MOST];
    const float *g[MOST];
    float step_size[MOST];
    // The last block of each parameter, not included.
    u32 end[MOST];
    u32 len[MOST];
    u32 count;
};

KERNEL adam(Parameters all, float correction, float factor) {
    u32 which = 0;
    while (which + 1 < all.count && blockIdx.x >= all.end[which]) ++which;
    u32 first = which == 0 ? 0 : all.end[which - 1];
    float *p = all.p[which], *m = all.m[which], *v = all.v[which];
    const float *g = all.g[which];
    THREADS(t) {
        u64 i = (u64)(blockIdx.x - first) * BLOCK_THREADS + t;
        if (i < all.len[which]) {
            float scaled = g[i] * factor;
            m[i] = 0.9f * m[i] + 0.1f * scaled;
            v[i] = 0.999f * v[i] + 0.001f * (scaled * scaled);
            p[i] -= all.step_size[which] * (m[i] / (sqrtf(v[i]) / correction + 1e-8f));
        }
    }
}
