// Sizes of a convolution, as kernels take them.
#pragma once
#include "launch.h"

struct Sizes {
    u32 channels, h, w, out_h, out_w, k_h, k_w, stride, top, left;
};
