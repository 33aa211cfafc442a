// What a search of ranges asks of many values: see `quant::range_search`.
#include "power.h"
#include "sums.h"

// Candidates of a block, and threads that share the values of one.
#define CANDIDATES 16
#define LANES 16

// found[3 * block ...] = the smallest and the largest of the block's values, NaN left out, and whether all are finite: 1 or 0.
KERNEL extremes_of_blocks(const float *x, float *found, u64 n) {
    SHARED float low[BLOCK_THREADS];
    SHARED float high[BLOCK_THREADS];
    SHARED u8 finite[BLOCK_THREADS];
    THREADS(t) {
        low[t] = INFINITY;
        high[t] = -INFINITY;
        finite[t] = 1;
        u64 start = (u64)blockIdx.x * BLOCK_ELEMENTS;
        for (u64 i = start + t; i < start + BLOCK_ELEMENTS && i < n; i += BLOCK_THREADS) {
            low[t] = fminf(low[t], x[i]);
            high[t] = fmaxf(high[t], x[i]);
            finite[t] &= fabsf(x[i]) < INFINITY;
        }
    }
    BARRIER;
    THREADS(t) {
        if (t == 0) {
            for (u32 i = 1; i < BLOCK_THREADS; ++i) {
                low[0] = fminf(low[0], low[i]);
                high[0] = fmaxf(high[0], high[i]);
                finite[0] &= finite[i];
            }
            found[3 * (u64)blockIdx.x] = low[0];
            found[3 * (u64)blockIdx.x + 1] = high[0];
            found[3 * (u64)blockIdx.x + 2] = finite[0];
        }
    }
}

// Adds each value to its bin; values are finite and at least `min`.
KERNEL histogram(const float *x, u32 *counts, double min, double width, u32 bins, u64 n) {
    EACH(i, n) {
        double bin = ((double)x[i] - min) / width;
        COUNT_ONE(&counts[bin < (double)bins ? (u32)bin : bins - 1]);
    }
}

DEVICE float error_of(float x, float scale, float zero_point, float highest, float exponent) {
    float level = fminf(fmaxf(rintf(x / scale) + zero_point, 0.0f), highest);
    return polynomial_power(fabsf((level - zero_point) * scale - x), exponent);
}

// partial[block of values, candidate] = sum of |Q(x) - x|^exponent; blocks of candidates take turns with each block of values. Sums are
// those of the CPU (`kernel::lane_sum`): 16 of single precision, then one of double.
KERNEL range_errors(const float *x, const float *scale, const float *zero_point, double *partial, float highest, float exponent,
                    u32 candidates, u64 n) {
    u32 groups = (candidates + CANDIDATES - 1) / CANDIDATES;
    u32 first = blockIdx.x % groups * CANDIDATES;
    u64 block = blockIdx.x / groups;
    u64 start = block * BLOCK_ELEMENTS;
    u32 len = n - start < BLOCK_ELEMENTS ? (u32)(n - start) : BLOCK_ELEMENTS;
    u32 whole = len / LANES * LANES;
    SHARED float values[BLOCK_ELEMENTS];
    SHARED float sums[BLOCK_THREADS];
    THREADS(t) {
        for (u32 i = t; i < len; i += BLOCK_THREADS) values[i] = x[start + i];
    }
    BARRIER;
    THREADS(t) {
        u32 candidate = first + t / LANES, lane = t % LANES;
        float sum = 0.0f;
        if (candidate < candidates) {
            float s = scale[candidate], z = zero_point[candidate];
            if (whole + lane < len) sum += error_of(values[whole + lane], s, z, highest, exponent);
            for (u32 i = lane; i < whole; i += LANES) sum += error_of(values[i], s, z, highest, exponent);
        }
        sums[t] = sum;
    }
    BARRIER;
    THREADS(t) {
        if (t < CANDIDATES && first + t < candidates) {
            double sum = 0.0;
            for (u32 lane = 0; lane < LANES; ++lane) sum += (double)sums[t * LANES + lane];
            partial[block * candidates + first + t] = sum;
        }
    }
}

// errors[candidate] = sum over blocks of partial[block, candidate], in their order.
KERNEL add_blocks(const double *partial, double *errors, u64 blocks, u32 candidates) {
    EACH(candidate, candidates) {
        double sum = 0.0;
        for (u64 block = 0; block < blocks; ++block) sum += partial[block * candidates + candidate];
        errors[candidate] = sum;
    }
}
