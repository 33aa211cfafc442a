//! Max pooling and depthwise convolutions.

use super::host::{Grid, kernels};
use super::{assert_equal, eighths, outcome, tensor, with_edges, written, written_words};
use metaaug::graph::Pool;
use metaaug::ops::conv::{Geometry, conv2d};
use metaaug::ops::pool::max_pool2d;

kernels! { Pooling of "pool.cu":
    fn max_pool_winners(x: *const f32, winners: *mut u32, window: Window, n: u64);
    fn max_pool_pick(x: *const f32, winners: *const u32, y: *mut f32, window: Window, n: u64);
    fn max_pool_put(gy: *const f32, winners: *const u32, gx: *mut f32, window: Window, n: u64);
}

kernels! { Depthwise of "depthwise.cu":
    fn depthwise_forward(x: *const f32, weight: *const f32, y: *mut f32, sizes: Sizes, n: u64);
    fn depthwise_input_gradient(gy: *const f32, weight: *const f32, gx: *mut f32, sizes: Sizes, n: u64);
    fn depthwise_weight_gradient(x: *const f32, gy: *const f32, gw: *mut f32, sizes: Sizes);
}

/// `Window` of `pool.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Window {
    pub h: u32,
    pub w: u32,
    pub out_h: u32,
    pub out_w: u32,
    pub kernel: u32,
    pub stride: u32,
    pub padding: u32,
}

/// `Sizes` of `depthwise.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Sizes {
    pub images: u32,
    pub channels: u32,
    pub h: u32,
    pub w: u32,
    pub out_h: u32,
    pub out_w: u32,
    pub k_h: u32,
    pub k_w: u32,
    pub stride: u32,
    pub padding: u32,
}

fn out(size: usize, kernel: usize, stride: usize, padding: usize) -> Option<usize> {
    Some((size + 2 * padding).checked_sub(kernel)? / stride + 1)
}

/// Planes of one pixel, one row or column, even and odd sizes.
const PLANES: [(usize, usize); 8] = [(1, 1), (1, 6), (5, 1), (2, 2), (4, 7), (9, 9), (8, 8), (23, 31)];

#[test]
fn max_pooling_and_its_gradient() {
    for (kernel, stride) in (1..5).flat_map(|kernel| (1..5).map(move |stride| (kernel, stride))) {
        for (padding, (h, w)) in (0..=kernel / 2).flat_map(|padding| PLANES.map(|plane| (padding, plane))) {
            let Some((out_h, out_w)) = out(h, kernel, stride, padding).zip(out(w, kernel, stride, padding)) else {
                continue;
            };
            for (images, special) in [(2, false), (2, true), (0, false)] {
                pooling([images, 3, h, w], (out_h, out_w), Pool { kernel, stride, padding }, special);
            }
        }
    }
}

/// One of them; `special` values are NaN, infinite, and windows of the lowest value alone.
fn pooling(shape: [usize; 4], (out_h, out_w): (usize, usize), pool: Pool, special: bool) {
    let what = format!("{shape:?} {pool:?}");
    let [images, channels, h, w] = shape;
    let (n, n_out) = (images * channels * h * w, images * channels * out_h * out_w);
    let mut x = eighths(n, 1);
    if special {
        x = with_edges(x, &[f32::NEG_INFINITY; 10]);
        x.iter_mut().skip(20).step_by(13).for_each(|x| *x = f32::NAN);
        x.iter_mut().skip(25).step_by(17).for_each(|x| *x = f32::INFINITY);
    }
    let gy = eighths(n_out, 2);
    let (value, [gradient]) = outcome([&tensor(&x, &shape)], &gy, |[x]| max_pool2d(x, pool).unwrap());
    let [h, w, out_h, out_w, kernel, stride, padding] =
        [h, w, out_h, out_w, pool.kernel, pool.stride, pool.padding].map(|size| size as u32);
    let window = Window { h, w, out_h, out_w, kernel, stride, padding };
    for kernels in Pooling::compiled() {
        let winners = written_words(n_out, |winners| {
            kernels.max_pool_winners(Grid::each(n_out), x.as_ptr(), winners, window, n_out as u64);
        });
        let winners = winners.as_ptr();
        let y = written(n_out, |y| {
            kernels.max_pool_pick(Grid::each(n_out), x.as_ptr(), winners, y, window, n_out as u64);
        });
        assert_equal(&what, &y, &value);
        let gx = written(n, |gx| {
            kernels.max_pool_put(Grid::each(n), gy.as_ptr(), winners, gx, window, n as u64);
        });
        assert_equal(&format!("{what}, gradient"), &gx, &gradient);
    }
}

#[test]
fn depthwise_convolutions_and_their_gradients() {
    let kernels = [(1, 1), (2, 2), (3, 3), (5, 5), (3, 1), (2, 5)];
    for (kernel, stride) in kernels.iter().flat_map(|kernel| (1..4).map(move |stride| (*kernel, stride))) {
        for (padding, (h, w)) in (0..4).flat_map(|padding| PLANES.map(|plane| (padding, plane))) {
            let Some(out) = out(h, kernel.0, stride, padding).zip(out(w, kernel.1, stride, padding)) else { continue };
            for images in [0, 2] {
                depthwise([images, 3, h, w], out, kernel, Geometry { stride, padding, groups: 3 });
            }
        }
    }
}

fn depthwise(shape: [usize; 4], (out_h, out_w): (usize, usize), (k_h, k_w): (usize, usize), geometry: Geometry) {
    let what = format!("{shape:?}, {k_h}x{k_w}, {geometry:?}");
    let [images, channels, h, w] = shape;
    let (n, n_out, taps) = (images * channels * h * w, images * channels * out_h * out_w, channels * k_h * k_w);
    let (x, weight, gy) = (eighths(n, 1), eighths(taps, 2), eighths(n_out, 3));
    let inputs = [&tensor(&x, &shape), &tensor(&weight, &[channels, 1, k_h, k_w])];
    let (value, [of_x, of_weight]) = outcome(inputs, &gy, |[x, w]| conv2d(x, w, None, geometry).unwrap());
    let Geometry { stride, padding, .. } = geometry;
    let [images, channels, h, w, out_h, out_w, k_h, k_w, stride, padding] =
        [images, channels, h, w, out_h, out_w, k_h, k_w, stride, padding].map(|size| size as u32);
    let sizes = Sizes { images, channels, h, w, out_h, out_w, k_h, k_w, stride, padding };
    for kernels in Depthwise::compiled() {
        let (x, weight, gy) = (x.as_ptr(), weight.as_ptr(), gy.as_ptr());
        let y = written(n_out, |y| kernels.depthwise_forward(Grid::each(n_out), x, weight, y, sizes, n_out as u64));
        assert_equal(&what, &y, &value);
        let gx = written(n, |gx| kernels.depthwise_input_gradient(Grid::each(n), gy, weight, gx, sizes, n as u64));
        assert_equal(&format!("{what}, gradient of the input"), &gx, &of_x);
        let gw = written(taps, |gw| kernels.depthwise_weight_gradient(Grid::blocks(taps), x, gy, gw, sizes));
        assert_equal(&format!("{what}, gradient of the weight"), &gw, &of_weight);
    }
}
