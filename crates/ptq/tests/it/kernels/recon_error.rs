//! The reconstruction error.

use super::host::{Grid, kernels};
use super::{Sums, assert_close, assert_equal, eighths, flat, outcome, summed, tensor, written};
use ptq::ops::recon_error::recon_error;
use std::ptr::null;

kernels! { Error of "recon_error.cu":
    fn recon_error(y: *const f32, target: *const f32, weight: *const f32, partial: *mut f64, p: f32, n: u64);
    fn recon_error_gradient(
        y: *const f32, target: *const f32, weight: *const f32, upstream: *const f32, g: *mut f32, p: f32, factor: f32,
        n: u64,
    );
}

/// `(N, C, ...)`, whose error is a mean over 1, 2 or more places.
const OUTPUTS: [&[usize]; 6] = [&[1, 1], &[2, 300], &[4, 64, 4, 4], &[4, 64, 4, 17], &[8, 3, 32, 32], &[3, 5, 7, 11]];

#[test]
fn reconstruction_errors_and_their_gradients() {
    for (kernels, sums) in Error::compiled().zip(Sums::compiled()) {
        for (shape, p) in OUTPUTS.iter().flat_map(|shape| [2.0, 2.4, 1.0].map(|p| (*shape, p))) {
            let n = shape.iter().product();
            // Equal in places, where powers have a corner.
            let [y, target, weight] = [1, 2, 3].map(|seed| eighths(n, seed));
            for weight in [None, Some(&weight)] {
                let what = format!("{shape:?}, p {p}, weighted {}", weight.is_some());
                let [target, weight_tensor] = [Some(&target), weight].map(|values| values.map(|x| tensor(x, shape)));
                let target = target.unwrap();
                let upstream = [-0.75];
                let (value, [of_y]) = outcome([&tensor(&y, shape)], &upstream, |[y]| {
                    recon_error(y, &target, weight_tensor.as_ref(), p).unwrap()
                });
                let means = n as f64 / shape[1] as f64;
                let target = flat(&target);
                let (y, target, weight) =
                    (y.as_ptr(), target.as_ptr(), weight.map_or(null(), |weight| weight.as_ptr()));
                let error = summed(sums, n, 1.0 / means, |grid, partial| {
                    kernels.recon_error(grid, y, target, weight, partial, p as f32, n as u64);
                });
                // Powers of the CPU are right to 1e-6 times the logarithm of what they give.
                let powers = if p == 2.0 { f32::EPSILON } else { 5e-6 };
                assert_close(&what, &[error], &value, powers * value[0].abs());
                let g = written(n, |g| {
                    let (p, factor, upstream) = (p as f32, (p / means) as f32, upstream.as_ptr());
                    kernels.recon_error_gradient(Grid::each(n), y, target, weight, upstream, g, p, factor, n as u64);
                });
                let largest = of_y.iter().fold(0f32, |largest, g| largest.max(g.abs()));
                assert_close(&format!("{what}, gradient"), &g, &of_y, 5e-6 * largest);
            }
        }
    }
}

#[test]
fn reconstruction_errors_of_nothing_infinities_and_nan() {
    for (kernels, sums) in Error::compiled().zip(Sums::compiled()) {
        let error = |y: &[f32], target: &[f32], p: f32| {
            summed(sums, y.len(), 1.0, |grid, partial| {
                kernels.recon_error(grid, y.as_ptr(), target.as_ptr(), null(), partial, p, y.len() as u64);
            })
        };
        for p in [2.0, 2.4] {
            assert_equal("nothing", &[error(&[], &[], p)], &[0.0]);
            assert_equal("infinite", &[error(&[1.0, f32::NEG_INFINITY], &[1.0, 0.0], p)], &[f32::INFINITY]);
            assert_equal("NaN", &[error(&[1.0, f32::INFINITY], &[1.0, f32::INFINITY], p)], &[f32::NAN]);
        }
    }
}
