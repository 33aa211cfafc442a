// Kernels as plain functions of C++, for tests on the host: each source by itself is a library of them.
//
// A call is one block, the one that `at_block` named last on this thread.
#pragma once
#include <math.h>

#define KERNEL extern "C" void
#define DEVICE static inline
#define SHARED static thread_local
#define UNROLL
#define BARRIER ((void)0)
#define COUNT_ONE(at) (++*(at))
// A phase. Its threads must not depend on their order, which -DLAST_THREAD_FIRST turns round.
#ifdef LAST_THREAD_FIRST
#define THREADS(t) for (u32 t = BLOCK_THREADS; t-- > 0;)
#else
#define THREADS(t) for (u32 t = 0; t < BLOCK_THREADS; ++t)
#endif
#define EACH(i, n) for (u64 i = (u64)blockIdx.x * blockDim.x; i < (n); i = next_of_block(i))

struct Extent {
    u32 x;
};

static thread_local Extent blockIdx = {0}, gridDim = {1};
static const Extent blockDim = {BLOCK_THREADS};

extern "C" void at_block(u32 block, u32 blocks) {
    blockIdx.x = block;
    gridDim.x = blocks;
}

// The element after i that one of the block's threads works on: after the last thread's, the first thread's a grid further on.
static inline u64 next_of_block(u64 i) {
    return (i + 1) % blockDim.x ? i + 1 : i + 1 + (u64)(gridDim.x - 1) * blockDim.x;
}
