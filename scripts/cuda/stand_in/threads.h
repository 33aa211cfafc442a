// Candle's kernels as functions of C++ that a thread of a grid calls: included before each of their sources.
//
// Without WAITING_THREADS the threads of a grid run one after the other. With it those of a block are fibers, which wait for each other
// where `__syncthreads` and `__shfl_xor_sync` say.
#pragma once
#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <algorithm>
#include <limits>
#include <type_traits>
#ifdef WAITING_THREADS
#include <setjmp.h>
#include <ucontext.h>
#include <vector>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __restrict__
#define __launch_bounds__(...)

struct Extent {
    unsigned x, y, z;
};
static thread_local Extent threadIdx, blockIdx, blockDim, gridDim;

using std::max;
using std::min;

template <typename T>
static T atomicAdd(T *to, T value) {
    T before = *to;
    return *to += value, before;
}
template <typename T>
static T atomicCAS(T *to, T expected, T value) {
    T before = *to;
    return *to = before == expected ? value : before, before;
}

static float normcdff(float x) { return 0.5f * erfcf(-x / sqrtf(2.0f)); }
static double normcdf(double x) { return 0.5 * erfc(-x / sqrt(2.0)); }
static float rsqrtf(float x) { return 1.0f / sqrtf(x); }

struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
static float2 make_float2(float x, float y) { return {x, y}; }

namespace cuda::std {
using ::std::numeric_limits;
}

// Numbers of 8 and 16 bits, which sources name also where their kernels are left out: nothing here computes with them.
struct Unused {
    unsigned char __x;
    Unused() = default;
    template <typename T>
    Unused(T) {}
    operator float() const { abort(); }
};
typedef Unused __half, __nv_bfloat16, __nv_fp8_e4m3, __half_raw;
enum { __NV_E4M3, __NV_SATFINITE };
static Unused __nv_cvt_fp8_to_halfraw(unsigned char, int) { abort(); }
static float __half2float(Unused) { abort(); }
static Unused __float2half(float) { abort(); }

#ifdef WAITING_THREADS
static const size_t STACK = 1 << 15;

// A fiber is begun by its context and gone on with by a jump, which takes a hundredth of the time.
struct Fibers {
    ucontext_t beginning;
    jmp_buf scheduler;
    struct Place {
        jmp_buf at;
    };
    std::vector<Place> places;
    std::vector<char> stacks, begun, done;
    std::vector<double> given[2];
    std::vector<unsigned> exchanges;
    unsigned current, arrived, generation;
    void (*body)(void *);
    void *closure;
};
static thread_local Fibers fibers;

static void next_fiber() {
    Extent self = threadIdx;
    if (!_setjmp(fibers.places[fibers.current].at)) _longjmp(fibers.scheduler, 1);
    threadIdx = self;
}

static void __syncthreads() {
    unsigned generation = fibers.generation;
    if (++fibers.arrived == fibers.places.size()) {
        fibers.arrived = 0;
        ++fibers.generation;
    }
    while (fibers.generation == generation) next_fiber();
}

// All threads of a warp come here equally often, and each leaves what it gives until all have read it.
template <typename T>
static T __shfl_xor_sync(unsigned, T value, int distance, int = 32) {
    unsigned self = fibers.current;
    auto &given = fibers.given[fibers.exchanges[self]++ % 2];
    given[self] = (double)value;
    next_fiber();
    unsigned other = self ^ (unsigned)distance;
    return other < given.size() ? (T)given[other] : value;
}

static void fiber() {
    fibers.body(fibers.closure);
    fibers.done[fibers.current] = 1;
    _longjmp(fibers.scheduler, 1);
}

// Until the fiber waits or ends.
static void go_on(unsigned t) {
    if (_setjmp(fibers.scheduler)) return;
    if (fibers.begun[t]) _longjmp(fibers.places[t].at, 1);
    fibers.begun[t] = 1;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = &fibers.stacks[t * STACK];
    context.uc_stack.ss_size = STACK;
    makecontext(&context, fiber, 0);
    swapcontext(&fibers.beginning, &context);
}

static void run_threads(void (*body)(void *), void *closure) {
    const size_t threads = (size_t)blockDim.x * blockDim.y * blockDim.z;
    fibers.places.resize(threads);
    fibers.stacks.resize(threads * STACK);
    fibers.begun.assign(threads, 0);
    fibers.done.assign(threads, 0);
    fibers.exchanges.assign(threads, 0);
    for (auto &given : fibers.given) given.assign(threads, 0.0);
    fibers.arrived = fibers.generation = 0;
    fibers.body = body;
    fibers.closure = closure;
    for (bool left = true; left;) {
        left = false;
        for (unsigned t = 0; t < threads; ++t) {
            if (fibers.done[t]) continue;
            left = true;
            fibers.current = t;
            threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
            go_on(t);
        }
    }
}
#else
static void __syncthreads() { abort(); }
template <typename T>
static T __shfl_xor_sync(unsigned, T, int, int = 32) { abort(); }

static void run_threads(void (*body)(void *), void *closure) {
    for (unsigned z = 0; z < blockDim.z; ++z) for (unsigned y = 0; y < blockDim.y; ++y) for (unsigned x = 0; x < blockDim.x; ++x) {
        threadIdx = {x, y, z};
        body(closure);
    }
}
#endif

// Calls `body` for every thread of a grid.
template <typename Body>
static void each_thread(const unsigned *grid, const unsigned *block, Body body) {
    _Pragma("omp parallel for") for (unsigned at = 0; at < grid[0] * grid[1] * grid[2]; ++at) {
        Body own = body;
        gridDim = {grid[0], grid[1], grid[2]};
        blockDim = {block[0], block[1], block[2]};
        blockIdx = {at % grid[0], at / grid[0] % grid[1], at / grid[0] / grid[1]};
        run_threads([](void *closure) { (*(Body *)closure)(); }, &own);
    }
}
