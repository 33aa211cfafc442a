// Random bits of single elements: the same as `rng::element_bits` gives.
#pragma once
#include "launch.h"

struct Mask {
    // Whether all elements are selected.
    u32 all;
    u32 key_0, key_1;
    // Elements whose bits are below are selected.
    u32 threshold;
};

DEVICE bool selects(Mask mask, u32 index) {
    u32 x = index ^ mask.key_0;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    x = (x ^ (x >> 16)) + mask.key_1;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    return mask.all || (x ^ (x >> 15)) < mask.threshold;
}
