// Powers of float as polynomials: `ops::power` of the CPU, operation by operation, so that both give the same bits.
#pragma once
#include "launch.h"

DEVICE u32 bits_of(float x) {
    union { float number; u32 bits; } both = {x};
    return both.bits;
}

DEVICE float of_bits(u32 x) {
    union { u32 bits; float number; } both = {x};
    return both.number;
}

// Of a finite x > 0.
DEVICE float polynomial_log2(float x) {
    u32 bits = bits_of(fmaxf(x, 1.17549435e-38f));
    u32 shifted = bits - 0x3f3504f3u;
    int exponent = (int)shifted >> 23;
    float mantissa = of_bits(bits - ((u32)exponent << 23));
    float s = (mantissa - 1.0f) / (mantissa + 1.0f);
    float s2 = s * s;
    float tail = s2 * (0.9617967f + s2 * (0.577078f + s2 * (0.41219857f + s2 * 0.3205989f)));
    return (float)exponent + (2.88539f * s + s * tail);
}

DEVICE float polynomial_exp2(float x) {
    const float to_integer = 12582912.0f;
    float inside = fminf(fmaxf(x, -126.0f), 127.0f);
    float shifted = inside + to_integer;
    float t = inside - (shifted - to_integer);
    float p = 1.5252734e-5f;
    p = p * t + 1.540353e-4f;
    p = p * t + 1.3333558e-3f;
    p = p * t + 9.618129e-3f;
    p = p * t + 5.550411e-2f;
    p = p * t + 2.402265e-1f;
    p = p * t + 6.931472e-1f;
    p = p * t + 1.0f;
    return x < -126.0f ? 0.0f : of_bits(bits_of(p) + (bits_of(shifted) << 23));
}

// x^p for x >= 0 and p > 0, NaN of NaN.
DEVICE float polynomial_power(float x, float p) {
    return x > 0.0f ? polynomial_exp2(p * polynomial_log2(x)) : x * 0.0f;
}
