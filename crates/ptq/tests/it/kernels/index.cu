// What kernels find elements with, by itself.
#include "launch.h"

KERNEL divided(const u64 *a, const u32 *b, u64 *quotients, u32 *rests, u64 n) {
    EACH(i, n) {
        quotients[i] = quotient(a[i], b[i]);
        rests[i] = rest(a[i], b[i]);
    }
}
