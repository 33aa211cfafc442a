//! BatchNorm in training mode, beside the CPU's of f64, which leaves the rounding of the kernels alone to be seen.

use super::host::{Grid, kernels};
use super::{assert_close, assert_equal, eighths, flat, noise, outcome, tensor, written, written_doubles};
use candle_core::{DType, Tensor, Var};
use ptq::ops::batch_norm::{batch_norm_train, track};

kernels! { Norm of "batch_norm.cu":
    fn blend(running: *mut f32, batch: *const f32, momentum: f32, n: u64);
    fn batch_sums(x: *const f32, sums: *mut f64, squares: *mut f64, batch: Batch);
    fn batch_statistics(
        sums: *const f64, squares: *const f64, mean: *mut f32, inverse_std: *mut f32, unbiased: *mut f32, eps: f64,
        batch: Batch, n: u64,
    );
    fn batch_norm(
        x: *const f32, mean: *const f32, inverse_std: *const f32, weight: *const f32, bias: *const f32, y: *mut f32,
        batch: Batch, n: u64,
    );
    fn batch_gradient_sums(
        x: *const f32, g: *const f32, mean: *const f32, inverse_std: *const f32, sums: *mut f64, products: *mut f64,
        batch: Batch,
    );
    fn batch_parameter_gradients(
        sums: *const f64, products: *const f64, g_bias: *mut f32, g_weight: *mut f32, batch: Batch, n: u64,
    );
    fn batch_input_gradient(
        x: *const f32, g: *const f32, mean: *const f32, inverse_std: *const f32, weight: *const f32,
        g_bias: *const f32, g_weight: *const f32, g_x: *mut f32, batch: Batch, n: u64,
    );
}

/// `Batch` of `batch_norm.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Batch {
    pub images: u32,
    pub channels: u32,
    pub pixels: u32,
}

/// `PART` of `batch_norm.cu`.
pub const PART: usize = 8192;
const EPS: f64 = 1e-5;

/// `(N, C, H, W)`: one value per channel, one pixel, few values, exactly one part, two and three of them, parts that end
/// within an image and between two.
const SHAPES: [[usize; 4]; 9] = [
    [1, 1, 1, 1],
    [1, 300, 1, 1],
    [5, 4, 1, 1],
    [2, 3, 4, 5],
    [3, 2, 9, 31],
    [1, 2, 64, 128],
    [2, 2, 64, 128],
    [1, 1, 1, PART + 1],
    [2, 3, 91, 97],
];

/// What one side makes of a batch and the gradient of its result.
struct Outcome {
    mean: Vec<f32>,
    unbiased: Vec<f32>,
    y: Vec<f32>,
    g_x: Vec<f32>,
    g_weight: Vec<f32>,
    g_bias: Vec<f32>,
}

fn on_cpu(shape: [usize; 4], [x, weight, bias, g]: [&[f32]; 4]) -> Outcome {
    let channels = [shape[1]];
    let exact = |values, shape| tensor(values, shape).to_dtype(DType::F64).unwrap();
    let inputs = [&exact(x, &shape), &exact(weight, &channels), &exact(bias, &channels)];
    let norm = |[x, weight, bias]: [&Tensor; 3]| batch_norm_train(x, weight, bias, EPS).unwrap();
    let (y, [g_x, g_weight, g_bias]) = outcome(inputs, g, |inputs| norm(inputs).0);
    let estimates = norm(inputs).1;
    Outcome { mean: flat(&estimates.mean), unbiased: flat(&estimates.var), y, g_x, g_weight, g_bias }
}

/// The kernels one after the other; `1 / sqrt(var + eps)` comes along.
fn by_kernels(norm: Norm, shape: [usize; 4], [x, weight, bias, g]: [&[f32]; 4]) -> (Outcome, Vec<f32>) {
    let [images, channels, h, w] = shape;
    let batch = Batch { images: images as u32, channels: channels as u32, pixels: (h * w) as u32 };
    let (parts, n) = (channels * (images * h * w).div_ceil(PART), x.len());
    let (x, weight, bias, g) = (x.as_ptr(), weight.as_ptr(), bias.as_ptr(), g.as_ptr());
    let mut squares = Vec::new();
    let sums = written_doubles(parts, |sums| {
        squares = written_doubles(parts, |squares| norm.batch_sums(Grid::blocks(parts), x, sums, squares, batch));
    });
    let (mut inverse_std, mut unbiased) = (Vec::new(), Vec::new());
    let mean = written(channels, |mean| {
        inverse_std = written(channels, |inverse_std| {
            unbiased = written(channels, |unbiased| {
                let (sums, squares, grid) = (sums.as_ptr(), squares.as_ptr(), Grid::each(channels));
                norm.batch_statistics(grid, sums, squares, mean, inverse_std, unbiased, EPS, batch, channels as u64);
            });
        });
    });
    let (m, s) = (mean.as_ptr(), inverse_std.as_ptr());
    let y = written(n, |y| norm.batch_norm(Grid::each(n), x, m, s, weight, bias, y, batch, n as u64));
    let mut products = Vec::new();
    let sums = written_doubles(parts, |sums| {
        products = written_doubles(parts, |products| {
            norm.batch_gradient_sums(Grid::blocks(parts), x, g, m, s, sums, products, batch);
        });
    });
    let mut g_weight = Vec::new();
    let g_bias = written(channels, |g_bias| {
        g_weight = written(channels, |g_weight| {
            let (sums, products, grid) = (sums.as_ptr(), products.as_ptr(), Grid::each(channels));
            norm.batch_parameter_gradients(grid, sums, products, g_bias, g_weight, batch, channels as u64);
        });
    });
    let g_x = written(n, |g_x| {
        let (g_bias, g_weight) = (g_bias.as_ptr(), g_weight.as_ptr());
        norm.batch_input_gradient(Grid::each(n), x, g, m, s, weight, g_bias, g_weight, g_x, batch, n as u64);
    });
    (Outcome { mean, unbiased, y, g_x, g_weight, g_bias }, inverse_std)
}

/// Channels of different means.
fn batch_of([images, channels, h, w]: [usize; 4]) -> Vec<f32> {
    let x = eighths(images * channels * h * w, 1);
    x.iter().enumerate().map(|(i, x)| x + (i / (h * w) % channels % 5) as f32).collect()
}

#[test]
fn running_statistics() {
    for kernels in Norm::compiled() {
        for n in [1, 255, 256, 1000] {
            let (mut running, batch) = (noise(n, 1), noise(n, 2));
            let var = Var::from_tensor(&tensor(&running, &[n])).unwrap();
            track(&var, &tensor(&batch, &[n]), 0.1).unwrap();
            kernels.blend(Grid::each(n), running.as_mut_ptr(), batch.as_ptr(), 0.1, n as u64);
            assert_equal(&format!("{n} channels"), &running, &flat(&var));
        }
    }
}

#[test]
fn batch_norm_and_its_gradients() {
    for (norm, shape) in Norm::compiled().flat_map(|norm| SHAPES.map(|shape| (norm, shape))) {
        let (x, channels) = (batch_of(shape), shape[1]);
        let (weight, bias, g) = (noise(channels, 2), noise(channels, 3), eighths(x.len(), 4));
        let given = [&x[..], &weight, &bias, &g];
        let (ours, inverse_std) = by_kernels(norm, shape, given);
        let expected = on_cpu(shape, given);
        let what = format!("{shape:?}");
        let count = x.len() / channels;

        assert_equal(&format!("{what}, mean"), &ours.mean, &expected.mean);
        assert_close(&format!("{what}, variance"), &ours.unbiased, &expected.unbiased, 1e-6);
        let biased = expected.unbiased.iter().map(|var| f64::from(*var) * (count.max(2) - 1) as f64 / count as f64);
        let inverse: Vec<f32> = biased.map(|var| (1.0 / (var + EPS).sqrt()) as f32).collect();
        let largest = inverse.iter().fold(0f32, |largest, inverse| largest.max(*inverse));
        assert_close(&format!("{what}, inverse deviation"), &inverse_std, &inverse, 1e-6 * largest);

        // Values are at most 6, their means too, weights 1, gradients 2, normalised values in each channel sqrt(count) and mostly 2.
        let rounding = 8.0 * f32::EPSILON;
        assert_close(&what, &ours.y, &expected.y, rounding * 6.0 * (1.0 + largest));
        assert_equal(&format!("{what}, gradient of the bias"), &ours.g_bias, &expected.g_bias);
        let products = count as f32 * 2.0 * 2.0;
        assert_close(
            &format!("{what}, gradient of the weight"),
            &ours.g_weight,
            &expected.g_weight,
            rounding * products,
        );
        assert_close(
            &format!("{what}, gradient of the input"),
            &ours.g_x,
            &expected.g_x,
            rounding * 2.0 * 2.0 * 2.0 * largest,
        );
    }
}

#[test]
fn channels_of_one_value_all_over() {
    let shape @ [images, channels, h, w] = [2, 40, 70, 70];
    let constants: Vec<f32> = (0..channels).map(|channel| 0.37 * channel as f32 - 7.7).collect();
    let x: Vec<f32> = (0..images * channels * h * w).map(|i| constants[i / (h * w) % channels]).collect();
    let (weight, bias, g) = (noise(channels, 2), noise(channels, 3), eighths(x.len(), 4));
    let given = [&x[..], &weight, &bias, &g];
    let expected = on_cpu(shape, given);
    for norm in Norm::compiled() {
        let (ours, _) = by_kernels(norm, shape, given);
        assert_equal("mean", &ours.mean, &constants);
        assert!(ours.unbiased.iter().all(|var| (0.0..1e-11).contains(var)), "{:?}", ours.unbiased);
        assert_equal("value", &ours.y, &expected.y);
        assert_equal("gradient of the bias", &ours.g_bias, &expected.g_bias);
        assert_equal("gradient of the weight", &ours.g_weight, &vec![0.0; channels]);
        // Times 1 / sqrt(eps).
        assert_close("gradient of the input", &ours.g_x, &expected.g_x, 316.3 * 4e-6);
    }
}

#[test]
fn nan_and_infinities_stay_in_their_channels() {
    let shape @ [_, channels, h, w] = [2, 5, 3, 5];
    let (mut x, mut g) = (batch_of(shape), eighths(2 * channels * h * w, 4));
    let at = |channel: usize| channel * h * w + 7;
    x[at(0)] = f32::NAN;
    x[at(1)] = f32::INFINITY;
    g[at(2)] = f32::NAN;
    g[at(3)] = f32::NEG_INFINITY;
    let (weight, bias) = (noise(channels, 2), noise(channels, 3));
    let given = [&x[..], &weight, &bias, &g];
    let expected = on_cpu(shape, given);
    for norm in Norm::compiled() {
        let (ours, _) = by_kernels(norm, shape, given);
        assert_equal("mean", &ours.mean, &expected.mean);
        assert_close("variance", &ours.unbiased, &expected.unbiased, 1e-6);
        assert_close("value", &ours.y, &expected.y, 1e-5);
        assert_equal("gradient of the bias", &ours.g_bias, &expected.g_bias);
        assert_close("gradient of the weight", &ours.g_weight, &expected.g_weight, 1e-4);
        // Infinities of both signs meet, in an order that is each side's own.
        let [of_kernels, of_cpu] = [&ours.g_x, &expected.g_x]
            .map(|g_x| g_x.iter().map(|g| if g.is_finite() { *g } else { f32::NAN }).collect::<Vec<f32>>());
        assert_close("gradient of the input", &of_kernels, &of_cpu, 1e-5);
        assert!(ours.g_x[4 * h * w..5 * h * w].iter().all(|g| g.is_finite()), "the channel beside them");
    }
}
