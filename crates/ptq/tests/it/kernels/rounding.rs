//! Rounding of weights and its regulariser.

use super::host::{Grid, kernels};
use super::{Sums, assert_close, assert_equal, eighths, flat, noise, outcome, summed, tensor, with_edges, written};
use ptq::ops::rounding::{Levels, Regulariser, SoftWeight, hard_weight, inverse_stretched_sigmoid, soft_weight};

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
        // Those of the edges are not clipped: what becomes of them shows.
        let floor: Vec<f32> = with_edges(eighths(n, 2).iter().map(|x| (2.0 * x).floor()).collect(), &[0.0; 8]);
        let zero_point: Vec<f32> = with_edges(eighths(channels, 3).iter().map(|x| (x + 2.0).floor()).collect(), &[1.0]);
        Self::of(alpha, scale, floor, zero_point, 3.0)
    }

    fn of(alpha: Vec<f32>, scale: Vec<f32>, floor: Vec<f32>, zero_point: Vec<f32>, highest: f32) -> Self {
        let channels = scale.len();
        let levels = Levels {
            floor: tensor(&floor, &[channels, floor.len() / channels]),
            zero_point: tensor(&zero_point, &[channels]),
            highest,
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

#[test]
fn gradients_pass_on_the_bounds_of_the_levels() {
    // Among large numbers little more than 0 and little less than 1 vanish: levels are exactly 0 and 255, inside of both clips.
    let alpha = [1.0 - 4e-6, 4e-6].map(inverse_stretched_sigmoid);
    let (floor, zero, g) = (vec![-256.0, 255.0], vec![255.0, 0.0], [1.0; 2]);
    let Weight { scale, levels, .. } = Weight::of(alpha.to_vec(), vec![1.0; 2], floor.clone(), zero.clone(), 255.0);
    let inputs = [&tensor(&alpha, &[2, 1]), &tensor(&scale, &[2])];
    let (_, [of_alpha, _]) =
        outcome(inputs, &g, |[alpha, scale]| soft_weight(alpha, scale, &levels, None).unwrap().weight);
    assert!(of_alpha.iter().all(|g| *g > 0.05), "{of_alpha:?}");
    for kernels in Rounding::compiled() {
        let (alpha, scale, g) = (alpha.as_ptr(), scale.as_ptr(), g.as_ptr());
        let (floor, zero) = (floor.as_ptr(), zero.as_ptr());
        let g_alpha = written(2, |g_alpha| {
            written(2, |g_scale| {
                let grid = Grid::blocks(2);
                kernels.soft_weight_gradient(grid, alpha, scale, floor, zero, g, g_alpha, g_scale, 255.0, 1, 1.0, 0.0);
            });
        });
        assert_close("gradient", &g_alpha, &of_alpha, 1e-6);
    }
}
