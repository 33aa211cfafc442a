// The second step of sums: over all elements, by one block, and over images.
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

// sums[i] = sum over images of x[image, i].
KERNEL add_images(const float *x, float *sums, u32 images, u64 n) {
    EACH(i, n) {
        float sum = 0.0f;
        for (u32 image = 0; image < images; ++image) sum += x[image * n + i];
        sums[i] = sum;
    }
}
