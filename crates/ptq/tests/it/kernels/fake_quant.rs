//! Fake quantization of activations.

use super::host::{Grid, kernels};
use super::mix::{KeyedMask, masks};
use super::{
    COUNTS, Sums, assert_close, assert_equal, eighths, flat, noise, outcome, summed, tensor, with_edges, written,
};
use ptq::ops::fake_quant::ClipOrder;
use ptq::ops::fake_quant::{FakeQuant, Linearised, Mask, fake_quant};

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
