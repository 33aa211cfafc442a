//! Max pooling.

use super::host::{Grid, kernels};
use super::{PLANES, assert_equal, eighths, outcome, tensor, windows, with_edges, written, written_words};
use ptq::ops::pool::Pool;
use ptq::ops::pool::max_pool2d;

kernels! { Pooling of "pool.cu":
    fn max_pool_winners(x: *const f32, winners: *mut u32, window: Window, n: u64);
    fn max_pool_pick(x: *const f32, winners: *const u32, y: *mut f32, window: Window, n: u64);
    fn max_pool_put(gy: *const f32, winners: *const u32, gx: *mut f32, window: Window, n: u64);
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

#[test]
fn max_pooling_and_its_gradient() {
    for (kernel, stride) in (1..5).flat_map(|kernel| (1..5).map(move |stride| (kernel, stride))) {
        for (padding, (h, w)) in (0..=kernel / 2).flat_map(|padding| PLANES.map(|plane| (padding, plane))) {
            let Some((out_h, out_w)) = windows(h, kernel, stride, padding).zip(windows(w, kernel, stride, padding))
            else {
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
