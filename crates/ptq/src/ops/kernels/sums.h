// Sums over all elements: every block leaves one number, and `add_up` adds these.
#pragma once
#include "launch.h"

// Elements that one block sums up.
#define BLOCK_ELEMENTS 4096

// `value` of each element `i` of this block of `n` elements, summed into partial[blockIdx.x].
#define BLOCK_PARTIAL(i, n, partial, value)                                                                                    \
    SHARED double sums[BLOCK_THREADS];                                                                                         \
    THREADS(t) {                                                                                                               \
        double sum = 0.0;                                                                                                      \
        u64 start = (u64)blockIdx.x * BLOCK_ELEMENTS;                                                                          \
        for (u64 i = start + t; i < start + BLOCK_ELEMENTS && i < (n); i += BLOCK_THREADS) sum += (value);                     \
        sums[t] = sum;                                                                                                         \
    }                                                                                                                          \
    double total = block_sum(sums);                                                                                            \
    THREADS(t) {                                                                                                               \
        if (t == 0) (partial)[blockIdx.x] = total;                                                                             \
    }
