//! Rectified linear units, biases, mini-batches, Adam.

use super::host::{Grid, kernels};
use super::{COUNTS, assert_equal, eighths, flat, noise, outcome, tensor, with_edges, written};
use candle_core::Var;
use metaaug::ops::adam::AdamState;
use metaaug::ops::channels::{add_bias, channel_sums};
use metaaug::ops::fake_quant::Mask;
use metaaug::ops::mix::mix_rows;
use metaaug::ops::relu::{clipped_relu, clipped_relu_of_sum, gate};
use metaaug::rng;

kernels! { Relu of "relu.cu":
    fn clipped_relu(x: *const f32, y: *mut f32, upper: f32, n: u64);
    fn clipped_relu_of_sum(a: *const f32, b: *const f32, y: *mut f32, upper: f32, n: u64);
    fn gate(t: *const f32, y: *const f32, gated: *mut f32, upper: f32, n: u64);
    fn add_bias(
        x: *const f32, bias: *const f32, y: *mut f32, pixels: u32, channels: u32, rectify: u32, upper: f32, n: u64,
    );
    fn channel_sums(x: *const f32, sums: *mut f32, pixels: u32, channels: u32, images: u32);
}

kernels! { Mix of "mix.cu":
    fn mix_rows(
        selected: *const f32, others: *const f32, rows: *const u32, mixed: *mut f32, width: u32, mask: KeyedMask, n: u64,
    );
}

kernels! { Adam of "adam.cu":
    fn adam(
        p: *mut f32, m: *mut f32, v: *mut f32, g: *const f32, step_size: f32, correction: f32, n: u64,
    );
}

/// `Mask` of `random.h`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct KeyedMask {
    all: u32,
    key: [u32; 2],
    threshold: u32,
}

impl KeyedMask {
    pub fn of(mask: &Mask) -> Self {
        match *mask {
            Mask::Keyed { key, threshold } => Self { all: 0, key, threshold },
            _ => Self { all: 1, key: [0; 2], threshold: 0 },
        }
    }
}

/// All elements, none, half, a few, and up to exactly the bits of one of the first elements, which is not selected then.
pub fn masks() -> Vec<Mask> {
    let key = [0x1234_5678, 0x9abc_def0];
    let thresholds = [0, u32::MAX / 2, u32::MAX / 50, u32::MAX, rng::element_bits(key, 3)];
    std::iter::once(Mask::All).chain(thresholds.map(|threshold| Mask::Keyed { key, threshold })).collect()
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

#[test]
fn rows_of_mini_batches() {
    for kernels in Mix::compiled() {
        for (rows, width) in [(vec![], 5), (vec![2], 1), (vec![6, 0, 6, 3], 77), (vec![1, 5, 4], 1000)] {
            let shape = [7, width];
            let (selected, others) = (noise(7 * width, 1), noise(7 * width, 2));
            let n = rows.len() * width;
            for mask in masks() {
                let expected = mix_rows(&tensor(&selected, &shape), &tensor(&others, &shape), &rows, &mask).unwrap();
                let (selected, others, rows) = (selected.as_ptr(), others.as_ptr(), rows.as_ptr());
                let mixed = written(n, |mixed| {
                    let mask = KeyedMask::of(&mask);
                    kernels.mix_rows(Grid::each(n), selected, others, rows, mixed, width as u32, mask, n as u64);
                });
                assert_equal(&format!("rows of {width}, {mask:?}"), &mixed, &flat(&expected));
            }
        }
    }
}

#[test]
fn masks_are_the_bits_of_the_elements() {
    for kernels in Mix::compiled() {
        let n = 5000;
        let (ones, zeros, rows) = (vec![1.0; n], vec![0.0; n], [0]);
        for mask in masks() {
            let Mask::Keyed { key, threshold } = mask else { continue };
            let selects = (0..n as u32).map(|i| f32::from(rng::element_bits(key, i) < threshold));
            let mask = KeyedMask::of(&mask);
            let selected = written(n, |mixed| {
                let rows = rows.as_ptr();
                kernels.mix_rows(Grid::each(n), ones.as_ptr(), zeros.as_ptr(), rows, mixed, n as u32, mask, n as u64);
            });
            assert_equal(&format!("{threshold}"), &selected, &selects.collect::<Vec<f32>>());
        }
    }
}

#[test]
fn steps_of_adam() {
    for kernels in Adam::compiled() {
        for n in COUNTS {
            let mut p = noise(n, 1);
            let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
            let var = Var::from_tensor(&tensor(&p, &[n])).unwrap();
            let state = AdamState::new(&var).unwrap();
            for t in 1..10 {
                let g = with_edges(noise(n, 10 + t as u64), &[0.0, 1e-30, 1e10, f32::NAN, f32::INFINITY, -0.0]);
                state.step(&tensor(&g, &[n]), t, 1e-2).unwrap();
                let correction = (1.0 - 0.999f64.powi(t as i32)).sqrt() as f32;
                let step_size = (1e-2 / (1.0 - 0.9f64.powi(t as i32))) as f32;
                let (p, m, v) = (p.as_mut_ptr(), m.as_mut_ptr(), v.as_mut_ptr());
                kernels.adam(Grid::each(n), p, m, v, g.as_ptr(), step_size, correction, n as u64);
            }
            assert_equal(&format!("{n} parameters"), &p, &flat(&var));
        }
    }
}
