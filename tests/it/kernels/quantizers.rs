//! Fake quantization, rounding of weights, the reconstruction error.

use super::elementwise::{KeyedMask, masks};
use super::host::{Grid, kernels};
use super::{
    COUNTS, Sums, assert_close, assert_equal, eighths, flat, noise, outcome, summed, tensor, with_edges, written,
};
use metaaug::ops::fake_quant::{FakeQuant, Linearised, Mask, fake_quant};
use metaaug::ops::recon_error::recon_error;
use metaaug::ops::rounding::{Levels, Regulariser, SoftWeight, hard_weight, soft_weight};
use metaaug::recon::recipe::ClipOrder;
use std::ptr::null;

kernels! { Quant of "fake_quant.cu":
    fn fake_quant(x: *const f32, scale: *const f32, y: *mut f32, levels: Bounds, mask: KeyedMask, n: u64);
    fn fake_quant_gradient(
        x: *const f32, scale: *const f32, g: *const f32, g_x: *mut f32, partial: *mut f64, levels: Bounds, mask: KeyedMask,
        n: u64,
    );
    fn linearised(
        x: *const f32, scale: *const f32, slope: *mut f32, level: *mut f32, levels: Bounds, mask: KeyedMask, n: u64,
    );
}

kernels! { Rounding of "rounding.cu":
    fn soft_weight(
        alpha: *const f32, scale: *const f32, floor: *const f32, zero_point: *const f32, w: *mut f32, highest: f32,
        per_channel: u32, n: u64,
    );
    fn hard_weight(
        alpha: *const f32, scale: *const f32, floor: *const f32, zero_point: *const f32, w: *mut f32, highest: f32,
        per_channel: u32, n: u64,
    );
    fn rounding_penalty(alpha: *const f32, partial: *mut f64, beta: f32, n: u64);
    fn soft_weight_gradient(
        alpha: *const f32, scale: *const f32, floor: *const f32, zero_point: *const f32, g: *const f32,
        g_alpha: *mut f32, g_scale: *mut f32, highest: f32, per_channel: u32, beta: f32, weight: f32,
    );
}

kernels! { Error of "recon_error.cu":
    fn recon_error(y: *const f32, target: *const f32, weight: *const f32, partial: *mut f64, p: f32, n: u64);
    fn recon_error_gradient(
        y: *const f32, target: *const f32, weight: *const f32, upstream: *const f32, g: *mut f32, p: f32, factor: f32,
        n: u64,
    );
}

/// `Levels` of `fake_quant.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Bounds {
    low: f32,
    high: f32,
    clip_then_round: u32,
}

impl Bounds {
    fn of(quant: &FakeQuant) -> Self {
        let (low, high) = quant.levels;
        Self { low, high, clip_then_round: u32::from(quant.clip == ClipOrder::ClipThenRound) }
    }
}

/// Halves of a scale of 1/2, its bounds -1 and 3/2, and what lies just outside of them.
const EDGES: [f32; 16] = [
    0.25,
    0.75,
    -0.25,
    1.25,
    -1.0,
    1.5,
    1.75,
    -1.25,
    1.75 + NEAR,
    -1.25 - NEAR,
    1.5 + NEAR,
    -1.0 - NEAR,
    0.0,
    -0.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
];
/// Little enough to be near, of few enough bits for sums to stay exact.
const NEAR: f32 = 1.0 / 512.0;

/// Both orders of clipping with each mask.
fn quantizers() -> impl Iterator<Item = FakeQuant> {
    let orders = [ClipOrder::ClipThenRound, ClipOrder::RoundThenClip];
    let all = orders.into_iter().flat_map(|clip| masks().into_iter().map(move |mask| (clip, mask)));
    all.map(|(clip, mask)| FakeQuant { levels: (-2.0, 3.0), clip, scale_gradient_factor: 0.25, mask })
}

#[test]
fn fake_quantization_and_its_gradients() {
    for (kernels, sums) in Quant::compiled().zip(Sums::compiled()) {
        for n in COUNTS {
            let (x, g) = (with_edges(eighths(n, 1), &EDGES), eighths(n, 2));
            // Multiples of a scale of 1/2 make sums of few bits; those of 0.3 do not.
            for (quant, scale) in quantizers().flat_map(|quant| [(quant.clone(), 0.5f32), (quant, 0.3)]) {
                let what = format!("{n} elements, scale {scale}, {quant:?}");
                let inputs = [&tensor(&x, &[n]), &tensor(&[scale], &[1])];
                let (value, [of_x, of_scale]) =
                    outcome(inputs, &g, |[x, scale]| fake_quant(x, scale, quant.clone()).unwrap());
                let (levels, mask) = (Bounds::of(&quant), KeyedMask::of(&quant.mask));
                let y = written(n, |y| {
                    kernels.fake_quant(Grid::each(n), x.as_ptr(), &raw const scale, y, levels, mask, n as u64);
                });
                assert_equal(&what, &y, &value);
                let mut g_scale = 0.0;
                let g_x = written(n, |g_x| {
                    g_scale = summed(sums, n, 0.25, |grid, partial| {
                        let (x, scale, g) = (x.as_ptr(), &raw const scale, g.as_ptr());
                        kernels.fake_quant_gradient(grid, x, scale, g, g_x, partial, levels, mask, n as u64);
                    });
                });
                assert_equal(&format!("{what}, gradient"), &g_x, &of_x);
                // The CPU adds up to 4096 / 16 numbers in f32 before it goes on in f64.
                let rounding = 0.25 * 3.0 * 256.0 * f32::EPSILON * g.iter().map(|g| g.abs()).sum::<f32>();
                let tolerance = if scale == 0.5 { 0.0 } else { rounding };
                assert_close(&format!("{what}, gradient of the scale"), &[g_scale], &of_scale, tolerance);
                let alone = gradient_of_scale_alone(kernels, sums, [&x, &g], scale, &quant);
                assert_equal("the gradient of the scale alone", &[alone], &[g_scale]);
            }
        }
    }
}

fn gradient_of_scale_alone(kernels: Quant, sums: Sums, [x, g]: [&[f32]; 2], scale: f32, quant: &FakeQuant) -> f32 {
    summed(sums, x.len(), 0.25, |grid, partial| {
        let (levels, mask) = (Bounds::of(quant), KeyedMask::of(&quant.mask));
        let (x, g, n) = (x.as_ptr(), g.as_ptr(), x.len() as u64);
        kernels.fake_quant_gradient(grid, x, &raw const scale, g, std::ptr::null_mut(), partial, levels, mask, n);
    })
}

#[test]
fn linearised_quantizers() {
    for kernels in Quant::compiled() {
        for n in COUNTS {
            let x = with_edges(noise(n, 1), &EDGES);
            for (quant, scale) in quantizers().flat_map(|quant| [(quant.clone(), 0.5f32), (quant, 0.3)]) {
                let expected = Linearised::at(&tensor(&x, &[n]), &tensor(&[scale], &[1]), &quant).unwrap();
                let (levels, mask) = (Bounds::of(&quant), KeyedMask::of(&quant.mask));
                let mut level = Vec::new();
                let slope = written(n, |slope| {
                    level = written(n, |level| {
                        let (x, scale) = (x.as_ptr(), &raw const scale);
                        kernels.linearised(Grid::each(n), x, scale, slope, level, levels, mask, n as u64);
                    });
                });
                assert_equal(&format!("{quant:?}, slope"), &slope, &flat(&expected.slope));
                assert_equal(&format!("{quant:?}, level"), &level, &flat(&expected.level));
            }
        }
    }
}

#[test]
fn nan_stays_nan_through_fake_quantization() {
    for (kernels, sums) in Quant::compiled().zip(Sums::compiled()) {
        for clip in [ClipOrder::ClipThenRound, ClipOrder::RoundThenClip] {
            let quant = FakeQuant { levels: (-2.0, 3.0), clip, scale_gradient_factor: 0.25, mask: Mask::All };
            let (levels, mask) = (Bounds::of(&quant), KeyedMask::of(&quant.mask));
            let (x, scale, g) = ([f32::NAN, 0.5], 0.5, [1.0, 2.0]);
            let y = written(2, |y| kernels.fake_quant(Grid::each(2), x.as_ptr(), &raw const scale, y, levels, mask, 2));
            assert_equal("value", &y, &[f32::NAN, 0.5]);
            let g_x = written(2, |g_x| {
                let g_scale = summed(sums, 2, 1.0, |grid, partial| {
                    let (x, scale, g) = (x.as_ptr(), &raw const scale, g.as_ptr());
                    kernels.fake_quant_gradient(grid, x, scale, g, g_x, partial, levels, mask, 2);
                });
                assert!(g_scale.is_nan());
            });
            assert_equal("gradient", &g_x, &[0.0, 2.0]);
        }
    }
}

/// Output channels and weights in each.
const WEIGHTS: [(usize, usize); 6] = [(1, 1), (3, 1), (1, 300), (5, 77), (300, 3), (2, 5000)];

/// A weight of levels 0 to 3, for the kernels and for the CPU.
struct Weight {
    /// From where the rounding is 0 to where it is 1.
    alpha: Vec<f32>,
    scale: Vec<f32>,
    floor: Vec<f32>,
    zero_point: Vec<f32>,
    levels: Levels,
}

impl Weight {
    fn new((channels, per_channel): (usize, usize)) -> Self {
        let n = channels * per_channel;
        let alpha = noise(n, 1).iter().map(|x| 4.0 * x).collect();
        let alpha = with_edges(alpha, &[0.0, -0.0, 20.0, -20.0, 90.0, -90.0, 300.0, -300.0]);
        let scale = noise(channels, 4).iter().map(|x| 0.5 + 0.25 * x).collect();
        let floor: Vec<f32> = eighths(n, 2).iter().map(|x| (2.0 * x).floor()).collect();
        let zero_point: Vec<f32> = eighths(channels, 3).iter().map(|x| (x + 2.0).floor()).collect();
        let levels = Levels {
            floor: tensor(&floor, &[channels, per_channel]),
            zero_point: tensor(&zero_point, &[channels]),
            highest: 3.0,
        };
        Self { alpha, scale, floor, zero_point, levels }
    }
}

#[test]
fn hard_rounding() {
    for kernels in Rounding::compiled() {
        for (channels, per_channel) in WEIGHTS {
            let Weight { alpha, scale, floor, zero_point, levels } = Weight::new((channels, per_channel));
            let n = alpha.len();
            let expected =
                hard_weight(&tensor(&alpha, &[channels, per_channel]), &tensor(&scale, &[channels]), &levels);
            let (alpha, scale, floor, zero) = (alpha.as_ptr(), scale.as_ptr(), floor.as_ptr(), zero_point.as_ptr());
            let w = written(n, |w| {
                kernels.hard_weight(Grid::each(n), alpha, scale, floor, zero, w, 3.0, per_channel as u32, n as u64);
            });
            assert_equal(&format!("{channels} channels of {per_channel}"), &w, &flat(&expected.unwrap()));
        }
    }
}

#[test]
fn soft_rounding_its_regulariser_and_their_gradients() {
    let regularisers = [None, Some(2.0), Some(7.3), Some(20.0)];
    for (kernels, sums) in Rounding::compiled().zip(Sums::compiled()) {
        for ((channels, per_channel), beta) in WEIGHTS.iter().flat_map(|sizes| regularisers.map(|beta| (*sizes, beta)))
        {
            let what = format!("{channels} channels of {per_channel}, beta {beta:?}");
            let Weight { alpha, scale, floor, zero_point, levels } = Weight::new((channels, per_channel));
            let (n, g) = (alpha.len(), eighths(alpha.len(), 5));
            let regulariser = beta.map(|beta| Regulariser { beta, weight: 0.1 });
            let inputs = [&tensor(&alpha, &[channels, per_channel]), &tensor(&scale, &[channels])];
            let soft = |[alpha, scale]: [&_; 2]| soft_weight(alpha, scale, &levels, regulariser).unwrap();
            let SoftWeight { penalty, .. } = soft(inputs);
            let (value, [of_alpha, of_scale]) = outcome(inputs, &g, |inputs| soft(inputs).weight);

            let (alpha, scale, g) = (alpha.as_ptr(), scale.as_ptr(), g.as_ptr());
            let (floor, zero) = (floor.as_ptr(), zero_point.as_ptr());
            let w = written(n, |w| {
                kernels.soft_weight(Grid::each(n), alpha, scale, floor, zero, w, 3.0, per_channel as u32, n as u64);
            });
            // The CPU's exponentials are polynomials, whose sigmoid is right to 3e-6.
            assert_close(&what, &w, &value, 3e-6);
            let mut g_scale = Vec::new();
            let g_alpha = written(n, |g_alpha| {
                g_scale = written(channels, |g_scale| {
                    let (grid, per_channel, weight) =
                        (Grid::blocks(channels), per_channel as u32, if beta.is_some() { 0.1 } else { 0.0 });
                    let beta = beta.unwrap_or_default() as f32;
                    kernels.soft_weight_gradient(
                        grid,
                        alpha,
                        scale,
                        floor,
                        zero,
                        g,
                        g_alpha,
                        g_scale,
                        3.0,
                        per_channel,
                        beta,
                        weight,
                    );
                });
            });
            // Times what multiplies the sigmoid, up to 2, and for powers the exponent's logarithm.
            assert_close(&format!("{what}, gradient"), &g_alpha, &of_alpha, 2e-5);
            let terms = 3.0 * 2.0 * per_channel as f32;
            assert_close(&format!("{what}, gradient of the scales"), &g_scale, &of_scale, 3e-6 * terms);
            if let (Some(penalty), Some(beta)) = (penalty, beta) {
                let total = summed(sums, n, f64::from(0.1f32), |grid, partial| {
                    kernels.rounding_penalty(grid, alpha, partial, beta as f32, n as u64);
                });
                assert_close(&format!("{what}, regulariser"), &[total], &flat(&penalty), 0.1 * 1e-5 * n as f32);
            }
        }
    }
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
