// What every kernel is written with, so that one source is compiled for a GPU and, for tests, for the host.
//
// EACH runs its body for every element of a grid. A kernel that sums in blocks is a sequence of phases, THREADS, between which its
// threads wait at a BARRIER and share nothing but SHARED memory; on the host a phase is a loop over the threads of a block, and a
// kernel is called once for each block.
#pragma once

typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned char u8;

// Threads of a block: part of the results of sums.
#define BLOCK_THREADS 256

#ifdef __CUDACC__
#define KERNEL extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
#define DEVICE static __device__ __forceinline__
#define SHARED __shared__
#define UNROLL _Pragma("unroll")
#define BARRIER __syncthreads()
#define THREADS(t) for (u32 t = threadIdx.x, once = 1; once; once = 0)
// Counting is exact in any order, so that a race for a number does not show.
#define COUNT_ONE(at) atomicAdd((at), 1u)
#define EACH(i, n)                                                                                                             \
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (u64)gridDim.x * blockDim.x)
#else
#include "host.h"
#endif

// a / b and a % b: a division of 64 bits takes several times as long as one of 32, and indices rarely need it.
DEVICE u64 quotient(u64 a, u32 b) {
    return a >> 32 ? a / b : (u32)a / b;
}

DEVICE u32 rest(u64 a, u32 b) {
    return a >> 32 ? (u32)(a % b) : (u32)a % b;
}

// |x|^p, and 0 for 0 whatever p: where p is 0 it stands for the slope of |x|, which is 0 there. NaN stays.
DEVICE float power(float x, float p) {
    return x == 0.0f ? 0.0f : powf(fabsf(x), p);
}

// x where it is between the bounds, else the nearer bound; NaN stays (`kernel::bounded` of the CPU).
DEVICE float bounded(float x, float low, float high) {
    x = x <= low ? low : x;
    return x >= high ? high : x;
}

// The sum of one value for each thread, in an order that only the number of threads determines. `sums` is shared.
DEVICE double block_sum(double *sums) {
    for (u32 step = BLOCK_THREADS / 2; step > 0; step /= 2) {
        BARRIER;
        THREADS(t) {
            if (t < step) sums[t] += sums[t + step];
        }
    }
    BARRIER;
    return sums[0];
}
