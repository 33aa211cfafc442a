// Mini-batches cut from cached activations: see `ops::mix`.
#include "random.h"

KERNEL mix_rows(const float *selected, const float *others, const u32 *rows, float *mixed, u32 width, Mask mask, u64 n) {
    EACH(i, n) {
        u64 from = (u64)rows[quotient(i, width)] * width + rest(i, width);
        mixed[i] = selects(mask, (u32)i) ? selected[from] : others[from];
    }
}
