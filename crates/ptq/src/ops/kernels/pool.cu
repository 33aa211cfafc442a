// Max pooling: see `ops::pool`.
#include "launch.h"

struct Window {
    u32 h, w, out_h, out_w, kernel, stride, padding;
};

DEVICE u32 first_inside(u32 position, Window window) {
    u32 start = position * window.stride;
    return start > window.padding ? start - window.padding : 0;
}

// The position in its plane of the largest value of each window; of equal values the first, and NaN wins.
KERNEL max_pool_winners(const float *x, u32 *winners, Window window, u64 n) {
    EACH(i, n) {
        u64 line = quotient(i, window.out_w);
        u32 column = rest(i, window.out_w), row = rest(line, window.out_h);
        const float *plane = x + quotient(line, window.out_h) * window.h * window.w;
        u32 top = first_inside(row, window), left = first_inside(column, window);
        u32 bottom = row * window.stride + window.kernel - window.padding;
        u32 right = column * window.stride + window.kernel - window.padding;
        u32 winner = top * window.w + left;
        float largest = -INFINITY;
        for (u32 y = top; y < bottom && y < window.h; ++y) {
            for (u32 x_ = left; x_ < right && x_ < window.w; ++x_) {
                float value = plane[y * window.w + x_];
                if (value > largest || value != value) {
                    largest = value;
                    winner = y * window.w + x_;
                }
            }
        }
        winners[i] = winner;
    }
}

KERNEL max_pool_pick(const float *x, const u32 *winners, float *y, Window window, u64 n) {
    EACH(i, n) {
        y[i] = x[quotient(i, window.out_w * window.out_h) * window.h * window.w + winners[i]];
    }
}

// The adjoint of picking: each input pixel adds up the windows that it won, in reading order.
KERNEL max_pool_put(const float *gy, const u32 *winners, float *gx, Window window, u64 n) {
    EACH(i, n) {
        u64 line = quotient(i, window.w);
        u32 column = rest(i, window.w), row = rest(line, window.h), position = row * window.w + column;
        u64 plane = quotient(line, window.h) * window.out_h * window.out_w;
        // Windows that reach this pixel: start <= pixel < start + kernel, start = index * stride - padding.
        u32 y_end = (row + window.padding) / window.stride, x_end = (column + window.padding) / window.stride;
        u32 y_first = row + window.padding < window.kernel
                          ? 0 : (row + window.padding - window.kernel) / window.stride + 1;
        u32 x_first = column + window.padding < window.kernel
                          ? 0 : (column + window.padding - window.kernel) / window.stride + 1;
        float sum = 0.0f;
        for (u32 y = y_first; y <= y_end && y < window.out_h; ++y) {
            for (u32 x = x_first; x <= x_end && x < window.out_w; ++x) {
                u64 at = plane + y * window.out_w + x;
                if (winners[at] == position) sum += gy[at];
            }
        }
        gx[i] = sum;
    }
}
