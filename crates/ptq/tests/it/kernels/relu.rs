//! Rectified linear units, biases, and their gradients.

use super::host::{Grid, kernels};
use super::{COUNTS, assert_equal, eighths, flat, noise, outcome, tensor, with_edges, written};
use ptq::ops::channels::{add_bias, channel_sums, scale_rows};
use ptq::ops::relu::{clipped_relu, clipped_relu_of_sum, gate};

kernels! { Relu of "relu.cu":
    fn clipped_relu(x: *const f32, y: *mut f32, upper: f32, n: u64);
    fn clipped_relu_of_sum(a: *const f32, b: *const f32, y: *mut f32, upper: f32, n: u64);
    fn gate(t: *const f32, y: *const f32, gated: *mut f32, upper: f32, n: u64);
    fn add_bias(
        x: *const f32, bias: *const f32, y: *mut f32, pixels: u32, channels: u32, rectify: u32, upper: f32, n: u64,
    );
    fn scale_rows(x: *const f32, factors: *const f32, y: *mut f32, per_row: u32, n: u64);
    fn channel_sums(x: *const f32, sums: *mut f32, pixels: u32, channels: u32, images: u32);
}

const UPPERS: [f32; 3] = [f32::INFINITY, 6.0, 1.0];
const EDGES: [f32; 8] = [0.0, -0.0, 1.0, 6.0, f32::INFINITY, f32::NEG_INFINITY, 1e-45, f32::MAX];

#[test]
fn rectified_linear_units_and_their_gradients() {
    for relu in Relu::compiled() {
        for n in COUNTS {
            let (x, t) = (with_edges(eighths(n, 1), &EDGES), noise(n, 2));
            for upper in UPPERS {
                let what = format!("{n} elements up to {upper}");
                let (value, [gradient]) = outcome([&tensor(&x, &[n])], &t, |[x]| clipped_relu(x, upper).unwrap());
                let y = written(n, |y| relu.clipped_relu(Grid::each(n), x.as_ptr(), y, upper, n as u64));
                assert_equal(&what, &y, &value);
                let gated = |t: &[f32]| {
                    written(n, |gated| relu.gate(Grid::each(n), t.as_ptr(), y.as_ptr(), gated, upper, n as u64))
                };
                assert_equal(&format!("{what}, gradient"), &gated(&t), &gradient);
                let with_nan = with_edges(t.clone(), &[f32::NAN; 3]);
                let expected = gate(&tensor(&with_nan, &[n]), &tensor(&y, &[n]), upper).unwrap();
                assert_equal(&format!("{what}, gradient that is NaN"), &gated(&with_nan), &flat(&expected));
            }
        }
    }
}

#[test]
fn rows_with_a_factor_each() {
    for relu in Relu::compiled() {
        for (rows, per_row) in [(1, 1), (3, 257), (64, 9), (5, 1000), (2, 0)] {
            let n = rows * per_row;
            let (x, factors) = (with_edges(noise(n, 1), &EDGES), noise(rows, 2));
            let expected = scale_rows(&tensor(&x, &[rows, per_row]), &tensor(&factors, &[rows])).unwrap();
            let (x, factors) = (x.as_ptr(), factors.as_ptr());
            let y = written(n, |y| relu.scale_rows(Grid::each(n), x, factors, y, per_row as u32, n as u64));
            assert_equal(&format!("{rows} rows of {per_row}"), &y, &flat(&expected));
        }
    }
}

#[test]
fn rectified_sums() {
    for relu in Relu::compiled() {
        for n in COUNTS {
            // Sums of equal parts are the edges again.
            let [a, b] = [1, 2].map(|seed| with_edges(noise(n, seed), &EDGES.map(|edge| edge / 2.0)));
            for upper in UPPERS {
                let expected = clipped_relu_of_sum(&tensor(&a, &[n]), &tensor(&b, &[n]), upper).unwrap();
                let (a, b) = (a.as_ptr(), b.as_ptr());
                let y = written(n, |y| relu.clipped_relu_of_sum(Grid::each(n), a, b, y, upper, n as u64));
                assert_equal(&format!("{n} elements up to {upper}"), &y, &flat(&expected));
            }
        }
    }
}

#[test]
fn nan_stays_nan_through_rectified_linear_units() {
    for relu in Relu::compiled() {
        for upper in UPPERS {
            let (x, b, t) = ([f32::NAN, f32::INFINITY, 1.0], [1.0, f32::NEG_INFINITY, f32::NAN], [1.0; 3]);
            let y = written(3, |y| relu.clipped_relu(Grid::each(3), x.as_ptr(), y, upper, 3));
            assert_equal("relu", &y, &[f32::NAN, upper, 1.0]);
            let y = written(3, |y| relu.clipped_relu_of_sum(Grid::each(3), x.as_ptr(), b.as_ptr(), y, upper, 3));
            assert_equal("relu of a sum", &y, &[f32::NAN; 3]);
            let gated = written(3, |gated| relu.gate(Grid::each(3), t.as_ptr(), y.as_ptr(), gated, upper, 3));
            assert_equal("gradient", &gated, &[0.0; 3]);
        }
    }
}

#[test]
fn a_grid_of_fewer_threads_than_elements_reaches_them_all() {
    for relu in Relu::compiled() {
        for n in COUNTS {
            let x = eighths(n, 1);
            let y = written(n, |y| relu.clipped_relu(Grid::blocks(3), x.as_ptr(), y, f32::INFINITY, n as u64));
            assert_equal(&format!("{n} elements"), &y, &flat(&clipped_relu(&tensor(&x, &[n]), f32::INFINITY).unwrap()));
        }
    }
}

/// `(N, C, H, W)`: without images, one value, one channel or pixel, several blocks of threads.
const SHAPES: [[usize; 4]; 6] =
    [[0, 3, 4, 5], [1, 1, 1, 1], [5, 1, 7, 3], [3, 70, 1, 1], [2, 5, 16, 16], [3, 7, 9, 31]];

#[test]
fn biases_with_and_without_a_rectified_linear_unit_in_place_or_not() {
    for relu in Relu::compiled() {
        for shape in SHAPES {
            let [images, channels, h, w] = shape;
            let (pixels, n) = (h * w, images * channels * h * w);
            let (x, bias) = (noise(n, 1), noise(channels, 2));
            let plain = add_bias(&tensor(&x, &shape), &tensor(&bias, &[channels])).unwrap();
            for (rectify, upper) in [(0, 0.0), (1, f32::INFINITY), (1, 0.5)] {
                let expected = match rectify {
                    0 => plain.clone(),
                    _ => clipped_relu(&plain, upper).unwrap(),
                };
                let add = |x: *const f32, y: *mut f32| {
                    let (pixels, channels) = (pixels as u32, channels as u32);
                    relu.add_bias(Grid::each(n), x, bias.as_ptr(), y, pixels, channels, rectify, upper, n as u64);
                };
                let y = written(n, |y| add(x.as_ptr(), y));
                assert_equal(&format!("{shape:?} up to {upper}"), &y, &flat(&expected));
                let mut in_place = x.clone();
                let y = in_place.as_mut_ptr();
                add(y, y);
                assert_equal(&format!("{shape:?} up to {upper}, in place"), &in_place, &flat(&expected));
            }
        }
    }
}

#[test]
fn sums_of_channels() {
    for relu in Relu::compiled() {
        for shape in SHAPES {
            let [images, channels, h, w] = shape;
            let x = eighths(shape.iter().product(), 1);
            let sums = written(channels, |sums| {
                let (pixels, images) = ((h * w) as u32, images as u32);
                relu.channel_sums(Grid::blocks(channels), x.as_ptr(), sums, pixels, channels as u32, images);
            });
            assert_equal(&format!("{shape:?}"), &sums, &flat(&channel_sums(&tensor(&x, &shape)).unwrap()));
        }
    }
}
