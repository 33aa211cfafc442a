//! Depthwise convolution (one filter per channel) and its two gradients, by direct loops over image rows.

use super::matrix::Real;
use super::sizes::Sizes;
use pulp::Arch;
use rayon::prelude::*;

/// Planes handed to a worker at once: one plane is too little work for a task.
const PLANES: usize = 8;

/// `y = conv(x, w) + bias`.
pub(super) fn forward<T: Real>(sizes: &Sizes, x: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
    let mut y = vec![T::zero(); sizes.batch * sizes.out_image()];
    let arch = Arch::new();
    let planes = y.par_chunks_exact_mut(sizes.out_pixels()).zip(x.par_chunks_exact(sizes.in_pixels()));
    planes.with_min_len(PLANES).enumerate().for_each(|(plane, (y, x))| {
        let channel = plane % sizes.c_in;
        if let Some(bias) = bias {
            y.fill(bias[channel]);
        }
        arch.dispatch(|| {
            for_each_row_pair(sizes, |tap, rows| {
                let weight = w[channel * sizes.taps() + tap];
                let (x, y) = (&x[rows.input..], &mut y[rows.output..][..rows.len]);
                if sizes.stride == 1 {
                    y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * *x);
                } else {
                    y.iter_mut().zip(x.iter().step_by(sizes.stride)).for_each(|(y, x)| *y += weight * *x);
                }
            });
        });
    });
    y
}

/// Gradient of `sum(gy * conv(x, w))` to `x`.
pub(super) fn input_gradient<T: Real>(sizes: &Sizes, gy: &[T], w: &[T]) -> Vec<T> {
    let mut gx = vec![T::zero(); sizes.batch * sizes.in_image()];
    let arch = Arch::new();
    let planes = gx.par_chunks_exact_mut(sizes.in_pixels()).zip(gy.par_chunks_exact(sizes.out_pixels()));
    planes.with_min_len(PLANES).enumerate().for_each(|(plane, (gx, gy))| {
        let channel = plane % sizes.c_in;
        arch.dispatch(|| {
            for_each_row_pair(sizes, |tap, rows| {
                let weight = w[channel * sizes.taps() + tap];
                let (gx, gy) = (&mut gx[rows.input..], &gy[rows.output..][..rows.len]);
                if sizes.stride == 1 {
                    gx.iter_mut().zip(gy).for_each(|(gx, gy)| *gx += weight * *gy);
                } else {
                    gx.iter_mut().step_by(sizes.stride).zip(gy).for_each(|(gx, gy)| *gx += weight * *gy);
                }
            });
        });
    });
    gx
}

/// Gradient of `sum(gy * conv(x, w))` to `w`; parallel over channels, so each sum has one fixed order.
pub(super) fn weight_gradient<T: Real>(sizes: &Sizes, x: &[T], gy: &[T]) -> Vec<T> {
    let mut gw = vec![T::zero(); sizes.weight()];
    let arch = Arch::new();
    gw.par_chunks_exact_mut(sizes.taps()).enumerate().for_each(|(channel, gw)| {
        arch.dispatch(|| {
            for image in 0..sizes.batch {
                let plane = image * sizes.c_in + channel;
                let x = &x[plane * sizes.in_pixels()..][..sizes.in_pixels()];
                let gy = &gy[plane * sizes.out_pixels()..][..sizes.out_pixels()];
                for_each_row_pair(sizes, |tap, rows| {
                    let mut sum = T::zero();
                    let (x, gy) = (&x[rows.input..], &gy[rows.output..][..rows.len]);
                    gy.iter().zip(x.iter().step_by(sizes.stride)).for_each(|(gy, x)| sum += *gy * *x);
                    gw[tap] += sum;
                });
            }
        });
    });
    gw
}

/// A stretch of an output row and the start of the input values, `stride` apart, that one tap multiplies into it.
struct RowPair {
    input: usize,
    output: usize,
    len: usize,
}

#[inline(always)]
fn for_each_row_pair(sizes: &Sizes, mut visit: impl FnMut(usize, RowPair)) {
    for tap in 0..sizes.taps() {
        let (tap_y, tap_x) = (tap / sizes.k_w, tap % sizes.k_w);
        let xs = sizes.columns_inside(tap_x);
        if xs.is_empty() {
            continue;
        }
        for y in sizes.rows_inside(tap_y) {
            let in_y = y * sizes.stride + tap_y - sizes.padding;
            let in_x = xs.start * sizes.stride + tap_x - sizes.padding;
            visit(tap, RowPair { input: in_y * sizes.w + in_x, output: y * sizes.out_w + xs.start, len: xs.len() });
        }
    }
}
