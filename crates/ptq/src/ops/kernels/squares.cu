// Sums of squares of several vectors: see `ops::squares`.
#include "sums.h"

#define MOST 64

struct Vectors {
    const float *x[MOST];
    // The last block of each vector, not included.
    u32 end[MOST];
    u32 len[MOST];
    u32 count;
};

// partial[block] = sum of squares of the block's elements.
KERNEL squares_of_blocks(Vectors all, double *partial) {
    u32 which = 0;
    while (which + 1 < all.count && blockIdx.x >= all.end[which]) ++which;
    u32 first = which == 0 ? 0 : all.end[which - 1];
    const float *x = all.x[which];
    SHARED double sums[BLOCK_THREADS];
    THREADS(t) {
        double sum = 0.0;
        u64 start = (u64)(blockIdx.x - first) * BLOCK_ELEMENTS;
        for (u64 i = start + t; i < start + BLOCK_ELEMENTS && i < all.len[which]; i += BLOCK_THREADS) sum += (double)x[i] * x[i];
        sums[t] = sum;
    }
    double total = block_sum(sums);
    THREADS(t) {
        if (t == 0) partial[blockIdx.x] = total;
    }
}

// One block for each vector: result[vector] = the sum of its blocks.
KERNEL squares_of_vectors(Vectors all, const double *partial, float *result) {
    u32 which = blockIdx.x;
    u32 first = which == 0 ? 0 : all.end[which - 1];
    SHARED double sums[BLOCK_THREADS];
    THREADS(t) {
        double sum = 0.0;
        for (u32 i = first + t; i < all.end[which]; i += BLOCK_THREADS) sum += partial[i];
        sums[t] = sum;
    }
    double total = block_sum(sums);
    THREADS(t) {
        if (t == 0) result[which] = (float)total;
    }
}
