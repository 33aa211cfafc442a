// The second step of sums over all elements, of one block.
#include "sums.h"

// result = factor * sum of the partial sums.
KERNEL add_up(const double *partial, float *result, double factor, u32 blocks) {
    SHARED double sums[BLOCK_THREADS];
    THREADS(t) {
        double sum = 0.0;
        for (u32 i = t; i < blocks; i += BLOCK_THREADS) sum += partial[i];
        sums[t] = sum;
    }
    double total = block_sum(sums);
    THREADS(t) {
        if (t == 0) *result = (float)(factor * total);
    }
}
