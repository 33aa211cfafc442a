// Fake quantization of activations: see `ops::fake_quant`.
#include "random.h"
#include "sums.h"

struct Levels {
    float low, high;
    // Whether the gradient is judged before rounding (Genie) or after it (BRECQ, QDrop).
    u32 clip_then_round;
};

// The integer level of v = x / scale, and whether the gradient passes.
DEVICE float level_of(float v, Levels levels, bool *in_range) {
    float rounded = rintf(v);
    float judged = levels.clip_then_round ? v : rounded;
    *in_range = judged >= levels.low && judged <= levels.high;
    return bounded(rounded, levels.low, levels.high);
}

KERNEL fake_quant(const float *x, const float *scale, float *y, Levels levels, Mask mask, u64 n) {
    EACH(i, n) {
        bool in_range;
        float q = level_of(x[i] / *scale, levels, &in_range) * *scale;
        y[i] = selects(mask, (u32)i) ? q : x[i];
    }
}

// What one element gives to the gradient of the scale; writes that of x where g_x is not null.
DEVICE double element_gradient(const float *x, float scale, const float *g, float *g_x, Levels levels, Mask mask, u64 i) {
    float v = x[i] / scale;
    bool in_range, selected = selects(mask, (u32)i);
    float q = level_of(v, levels, &in_range);
    if (g_x) g_x[i] = in_range || !selected ? g[i] : 0.0f;
    return selected ? g[i] * (in_range ? q - v : q) : 0.0f;
}

KERNEL fake_quant_gradient(const float *x, const float *scale, const float *g, float *g_x, double *partial, Levels levels,
                           Mask mask, u64 n) {
    BLOCK_PARTIAL(i, n, partial, element_gradient(x, *scale, g, g_x, levels, mask, i))
}

KERNEL linearised(const float *x, const float *scale, float *slope, float *level, Levels levels, Mask mask, u64 n) {
    EACH(i, n) {
        bool in_range;
        float v = x[i] / *scale;
        float q = level_of(v, levels, &in_range);
        bool selected = selects(mask, (u32)i);
        slope[i] = !selected || in_range ? 1.0f : 0.0f;
        level[i] = selected ? (in_range ? q - v : q) : 0.0f;
    }
}
