//! Against a naive reference, central differences, and itself on other numbers of threads.

use super::*;
use crate::ops::check::{central_difference, noise, with_second_derivatives};
use candle_core::{Device, Var};
use proptest::prelude::*;

/// The defining sum, in `f64`, on nested loops.
fn reference(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geometry: Geometry) -> Vec<f64> {
    let Geometry { stride, padding, groups } = geometry;
    let (batch, c_in, height, width) = x.dims4().unwrap();
    let (c_out, c_group, k_h, k_w) = w.dims4().unwrap();
    let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (x, w, bias) = (flat(x), flat(w), bias.map(flat));
    let sides = |extent: usize, kernel: usize| match padding {
        Padding::Each(side) => (side, side),
        Padding::Same => {
            let needed = (extent.div_ceil(stride) - 1) * stride + kernel;
            let all = needed.saturating_sub(extent);
            (all / 2, all - all / 2)
        }
    };
    let ((top, bottom), (left, right)) = (sides(height, k_h), sides(width, k_w));
    let (out_h, out_w) = ((top + height + bottom - k_h) / stride + 1, (left + width + right - k_w) / stride + 1);
    let mut y = Vec::new();
    for n in 0..batch {
        for o in 0..c_out {
            for (i, j) in (0..out_h).flat_map(|i| (0..out_w).map(move |j| (i, j))) {
                let mut sum = bias.as_ref().map_or(0., |bias| bias[o]);
                for c in 0..c_group {
                    for (a, b) in (0..k_h).flat_map(|a| (0..k_w).map(move |b| (a, b))) {
                        let (row, column) = (i * stride + a, j * stride + b);
                        if row < top || row >= height + top || column < left || column >= width + left {
                            continue;
                        }
                        let channel = o / (c_out / groups) * c_group + c;
                        let pixel = (row - top) * width + column - left;
                        sum += w[((o * c_group + c) * k_h + a) * k_w + b]
                            * x[(n * c_in + channel) * height * width + pixel];
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

/// Shapes and geometry of one convolution.
#[derive(Clone, Debug)]
struct Case {
    x: (usize, usize, usize, usize),
    w: (usize, usize, usize, usize),
    geometry: Geometry,
}

impl Case {
    fn new(x: (usize, usize, usize, usize), w: (usize, usize, usize, usize), stride: usize, padding: usize) -> Case {
        Case { x, w, geometry: Geometry { stride, padding: Padding::Each(padding), groups: x.1 / w.1 } }
    }

    fn same(x: (usize, usize, usize, usize), w: (usize, usize, usize, usize), stride: usize) -> Case {
        Case { x, w, geometry: Geometry { stride, padding: Padding::Same, groups: x.1 / w.1 } }
    }

    fn tensors(&self, dtype: DType) -> (Tensor, Tensor, Tensor) {
        (noise(self.x, 1, dtype), noise(self.w, 2, dtype), noise(self.w.0, 3, dtype))
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let channels = prop_oneof![
        (1usize..10, 1usize..10).prop_map(|(c_in, c_out)| (c_in, c_out, 1)),
        (1usize..4, 1usize..4, 2usize..4).prop_map(|(i, o, groups)| (i * groups, o * groups, groups)),
        (1usize..10).prop_map(|channels| (channels, channels, channels)),
    ];
    (channels, 1usize..5, 1usize..5, 1usize..4, 0usize..5, 0usize..24, 0usize..24, 0usize..4).prop_map(
        |((c_in, c_out, groups), k_h, k_w, stride, padding, extra_h, extra_w, batch)| {
            // Padding that differs per side takes inputs smaller than the kernel, too.
            let (padding, room) = match padding {
                4 => (Padding::Same, 3),
                each => (Padding::Each(each), 2 * each),
            };
            let extent = |kernel: usize, extra: usize| (kernel + extra).saturating_sub(room).max(1);
            Case {
                x: (batch, c_in, extent(k_h, extra_h), extent(k_w, extra_w)),
                w: (c_out, c_in / groups, k_h, k_w),
                geometry: Geometry { stride, padding, groups },
            }
        },
    )
}

/// Shapes of the target networks, and batches large enough to be cut into uneven groups of images.
fn network_cases() -> Vec<Case> {
    vec![
        Case::new((2, 1, 28, 28), (16, 1, 3, 3), 1, 1),
        Case::new((3, 16, 28, 28), (16, 16, 3, 3), 1, 1),
        Case::new((2, 16, 28, 28), (32, 16, 3, 3), 2, 1),
        Case::new((2, 16, 28, 28), (32, 16, 1, 1), 2, 0),
        Case::new((3, 32, 14, 14), (32, 32, 3, 3), 1, 1),
        Case::new((9, 64, 7, 7), (64, 64, 3, 3), 1, 1),
        Case::new((37, 5, 4, 6), (6, 5, 3, 2), 1, 0),
        Case::new((37, 8, 9, 7), (12, 4, 3, 3), 2, 1),
        Case::new((37, 3, 5, 5), (3, 1, 3, 3), 1, 2),
        Case::new((1, 3, 33, 33), (64, 3, 7, 7), 2, 3),
        Case::new((2, 16, 28, 28), (64, 16, 1, 1), 1, 0),
        Case::new((2, 64, 28, 28), (64, 1, 3, 3), 2, 1),
        Case::new((2, 96, 14, 14), (96, 1, 3, 3), 1, 1),
        Case::new((1, 300, 5, 5), (70, 300, 3, 3), 1, 1),
        Case::new((37, 128, 5, 5), (136, 128, 3, 3), 1, 1),
        Case::new((11, 256, 7, 7), (288, 128, 3, 3), 2, 1),
        Case::new((0, 128, 5, 5), (136, 128, 3, 3), 1, 1),
        Case::new((0, 8, 9, 7), (12, 4, 3, 3), 2, 1),
        Case::same((2, 3, 30, 31), (32, 3, 3, 3), 2),
        Case::same((2, 96, 28, 27), (96, 1, 3, 3), 2),
        Case::same((3, 24, 14, 14), (24, 1, 5, 5), 2),
        Case::same((3, 24, 15, 10), (24, 1, 5, 5), 1),
        Case::same((9, 70, 8, 7), (72, 70, 3, 3), 2),
        Case::same((37, 128, 6, 6), (136, 128, 3, 3), 2),
    ]
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(what: &str, case: &Case, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what} of {case:?}");
    let scale = expected.iter().fold(1f64, |scale, v| scale.max(v.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * scale, "{what}[{i}] of {case:?}: {got}, expected {expected}");
    }
}

/// Forward against the reference; the gradients by `<gy, conv(x', w)> = <gx, x'>` and `<gy, conv(x, w')> = <gw, w'>`, which
/// hold for every `x'` and `w'`: three random ones each.
fn check_against_reference(case: &Case, dtype: DType, tolerance: f64) {
    let (x, w, bias) = case.tensors(dtype);
    let y = conv2d(&x, &w, Some(&bias), case.geometry).unwrap();
    assert_close("y", case, &values(&y), &reference(&x, &w, Some(&bias), case.geometry), tolerance);
    let y = conv2d(&x, &w, None, case.geometry).unwrap();
    assert_close("y without bias", case, &values(&y), &reference(&x, &w, None, case.geometry), tolerance);

    let gy = noise(y.dims4().unwrap(), 4, dtype);
    let (gx, gw) = gradients(&x, &w, &gy, case.geometry);
    let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for probe in 5..8 {
        let (other_x, other_w) = (noise(case.x, probe, dtype), noise(case.w, probe, dtype));
        let along_x = inner(&values(&gy), &reference(&other_x, &w, None, case.geometry));
        let along_w = inner(&values(&gy), &reference(&x, &other_w, None, case.geometry));
        let size = (gy.elem_count() as f64).sqrt() * (case.w.1 * case.w.2 * case.w.3) as f64;
        let near = |what: &str, got: f64, expected: f64| {
            assert!(
                (got - expected).abs() <= tolerance * size.max(1.),
                "{what} of {case:?}: {got}, expected {expected}"
            )
        };
        near("gx along x'", inner(&gx, &values(&other_x)), along_x);
        near("gw along w'", inner(&gw, &values(&other_w)), along_w);
    }
}

fn gradients(x: &Tensor, w: &Tensor, gy: &Tensor, geometry: Geometry) -> (Vec<f64>, Vec<f64>) {
    let (x, w) = (Var::from_tensor(x).unwrap(), Var::from_tensor(w).unwrap());
    let loss = (conv2d(&x, &w, None, geometry).unwrap() * gy).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    (values(grads.get(&x).unwrap()), values(grads.get(&w).unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn f32_matches_the_reference(case in cases()) {
        check_against_reference(&case, DType::F32, 2e-5);
    }

    #[test]
    fn f64_matches_the_reference(case in cases()) {
        check_against_reference(&case, DType::F64, 1e-12);
    }
}

#[test]
fn network_shapes_match_the_reference() {
    for case in network_cases() {
        check_against_reference(&case, DType::F32, 2e-5);
    }
}

#[test]
fn inputs_may_be_views() {
    let case = Case::new((2, 3, 7, 9), (4, 3, 3, 2), 2, 1);
    let (x, w, bias) = case.tensors(DType::F32);
    let expected = conv2d(&x, &w, Some(&bias), case.geometry).unwrap();
    // The same values behind a transpose, an offset and a broadcast.
    let x_view = x.transpose(2, 3).unwrap().contiguous().unwrap().transpose(2, 3).unwrap();
    let w_view = Tensor::cat(&[&w, &w], 0).unwrap().narrow(0, 4, 4).unwrap();
    let got = conv2d(&x_view, &w_view, Some(&bias), case.geometry).unwrap();
    assert_eq!(values(&got), values(&expected));
    let constant = Tensor::ones(1, DType::F32, &Device::Cpu).unwrap().broadcast_as(4).unwrap();
    let got = conv2d(&x, &w, Some(&constant), case.geometry).unwrap();
    assert_close("y", &case, &values(&got), &reference(&x, &w, Some(&constant), case.geometry), 1e-5);
}

/// Gradients of `loss` to `vars[i]`, for each `i` of `arguments`, against central differences.
fn check_gradients(
    case: &Case,
    what: &str,
    vars: &[Var],
    arguments: &[usize],
    loss: impl Fn(&[Var]) -> Result<Tensor>,
) {
    let grads = loss(vars).unwrap().backward().unwrap();
    for &i in arguments {
        let expected = central_difference(vars, i, &loss);
        assert_close(&format!("{what}, argument {i},"), case, &values(grads.get(&vars[i]).unwrap()), &expected, 1e-6);
    }
}

#[test]
fn every_gradient_matches_central_differences() {
    for case in [
        Case::new((2, 4, 5, 6), (6, 2, 3, 2), 2, 1),
        Case::new((2, 3, 4, 5), (3, 1, 3, 3), 1, 1),
        Case::new((2, 3, 4, 4), (5, 3, 1, 1), 1, 0),
        Case::same((2, 4, 6, 5), (6, 2, 3, 3), 2),
        Case::same((2, 3, 6, 4), (3, 1, 5, 4), 2),
    ] {
        let (x, w, bias) = case.tensors(DType::F64);
        let vars = [x, w, bias].map(|t| Var::from_tensor(&t).unwrap());
        let loss = |vars: &[Var]| {
            let y = conv2d(&vars[0], &vars[1], Some(vars[2].as_tensor()), case.geometry)?;
            Ok(y.sqr()?.sum_all()?)
        };
        check_gradients(&case, "conv2d", &vars, &[0, 1, 2], loss);
    }
}

/// Second order without a second backward pass: the gradients as functions of their own arguments.
#[test]
fn gradient_operations_have_the_right_gradients() {
    for case in [
        Case::new((2, 4, 5, 6), (6, 2, 3, 2), 2, 1),
        Case::new((2, 3, 4, 5), (3, 1, 3, 3), 1, 1),
        Case::new((2, 3, 4, 4), (5, 3, 1, 1), 1, 0),
        Case::same((2, 4, 6, 5), (6, 2, 3, 3), 2),
        Case::same((2, 3, 6, 4), (3, 1, 5, 4), 2),
    ] {
        let (x, w, _) = case.tensors(DType::F64);
        let gy = noise(conv2d(&x, &w, None, case.geometry).unwrap().dims(), 4, DType::F64);
        let vars = [x, w, gy].map(|t| Var::from_tensor(&t).unwrap());
        let (image, kernel) = ((case.x.2, case.x.3), (case.w.2, case.w.3));
        let of_input = |v: &[Var]| Ok(input_gradient(&v[2], &v[1], image, case.geometry)?.sqr()?.sum_all()?);
        let of_weight = |v: &[Var]| Ok(weight_gradient(&v[0], &v[2], kernel, case.geometry)?.sqr()?.sum_all()?);
        check_gradients(&case, "input gradient", &vars, &[1, 2], of_input);
        check_gradients(&case, "weight gradient", &vars, &[0, 2], of_weight);
    }
}

/// The derivative of a gradient step through two convolutions, as in a bi-level problem: `loss(x, w - 0.1 dloss/dw)`.
#[test]
fn second_derivatives_match_central_differences() {
    with_second_derivatives("ops::conv::tests::second_derivatives_match_central_differences", || {
        for (case, second) in [
            (Case::new((2, 4, 5, 6), (6, 2, 3, 2), 2, 1), (2, 6, 2, 2)),
            (Case::new((2, 3, 4, 4), (3, 1, 3, 3), 1, 1), (4, 3, 1, 1)),
            (Case::same((2, 3, 6, 5), (3, 1, 3, 3), 2), (4, 3, 1, 1)),
        ] {
            let (x, w, bias) = case.tensors(DType::F64);
            let vars = [x, w, bias, noise(second, 4, DType::F64)].map(|t| Var::from_tensor(&t).unwrap());
            let inner = |x: &Tensor, w: &Tensor, v: &[Var]| -> Result<Tensor> {
                let y = conv2d(x, w, Some(v[2].as_tensor()), case.geometry)?.tanh()?;
                let plain = Geometry { stride: 1, padding: Padding::Each(0), groups: 1 };
                Ok(conv2d(&y, &v[3], None, plain)?.sqr()?.sum_all()?)
            };
            let loss = |v: &[Var]| {
                let grads = inner(&v[0], &v[1], v)?.backward()?;
                let step = (grads.get(&v[1]).unwrap() * 0.1)?;
                inner(&v[0], &v[1].sub(&step)?, v)
            };
            check_gradients(&case, "gradient step", &vars, &[0, 1, 2, 3], loss);
        }
    });
}

#[test]
fn constants_get_no_gradient() {
    let case = Case::new((2, 3, 5, 5), (4, 3, 3, 3), 1, 1);
    let (x, w, bias) = case.tensors(DType::F32);
    let w = Var::from_tensor(&w).unwrap();
    let y = conv2d(&x, &w, Some(&bias), case.geometry).unwrap();
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&w).is_some());
    assert!(grads.get(&x).is_none() && grads.get(&bias).is_none());
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let all_bits = |case: &Case| {
        let (x, w, bias) = case.tensors(DType::F32);
        let y = conv2d(&x, &w, Some(&bias), case.geometry).unwrap();
        let (gx, gw) = gradients(&x, &w, &noise(y.dims4().unwrap(), 4, DType::F32), case.geometry);
        [values(&y), gx, gw].concat().iter().map(|v| v.to_bits()).collect::<Vec<u64>>()
    };
    let more = [
        Case::new((13, 8, 9, 9), (12, 8, 3, 3), 1, 1),
        Case::new((13, 8, 9, 9), (8, 1, 3, 3), 1, 1),
        Case::new((13, 8, 9, 9), (12, 4, 3, 3), 2, 1),
        Case::new((13, 8, 9, 9), (24, 8, 1, 1), 1, 0),
    ];
    for case in network_cases().iter().chain(&more) {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| all_bits(case))
        };
        let one = on(1);
        for threads in [2, 3, 5] {
            assert!(on(threads) == one, "{case:?} on {threads} threads");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = noise((2, 4, 5, 5), 1, DType::F32);
    let w = noise((6, 2, 3, 3), 2, DType::F32);
    let good = Geometry { stride: 1, padding: Padding::Each(1), groups: 2 };
    assert!(conv2d(&x, &w, None, good).is_ok());
    let problem =
        |x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geometry| conv2d(x, w, bias, geometry).unwrap_err().to_string();
    assert!(problem(&x, &w, None, Geometry { groups: 1, ..good }).contains("groups"));
    assert!(problem(&x, &w, None, Geometry { groups: 0, ..good }).contains("zero"));
    assert!(problem(&x, &w, None, Geometry { stride: 0, ..good }).contains("zero"));
    assert!(problem(&x, &noise((6, 2, 9, 3), 2, DType::F32), None, good).contains("9x3 kernel"));
    assert!(problem(&x, &w, Some(&noise(5, 3, DType::F32)), good).contains("bias"));
    assert!(problem(&x, &noise((6, 2, 3, 3), 2, DType::F64), None, good).contains("f32"));

    let gy = noise((2, 6, 5, 5), 4, DType::F32);
    assert_eq!(input_gradient(&gy, &w, (5, 5), good).unwrap().dims(), x.dims());
    assert_eq!(weight_gradient(&x, &gy, (3, 3), good).unwrap().dims(), w.dims());
    assert!(input_gradient(&gy, &w, (6, 5), good).unwrap_err().to_string().contains("gradient of an output"));
    assert!(weight_gradient(&x, &gy, (5, 3), good).unwrap_err().to_string().contains("gradient of an output"));
    assert!(weight_gradient(&x.narrow(0, 0, 1).unwrap(), &gy, (3, 3), good).is_err());
    assert!(weight_gradient(&x, &gy, (3, 3), Geometry { groups: 0, ..good }).is_err());
}

#[test]
fn a_rectified_convolution_is_both_operations_bit_for_bit() {
    for case in network_cases() {
        for (dtype, upper) in [(DType::F32, f32::INFINITY), (DType::F32, 0.5), (DType::F64, 0.5)] {
            let (x, w, bias) = case.tensors(dtype);
            let [x, w, bias] = [x, w, bias].map(|tensor| Var::from_tensor(&tensor).unwrap());
            let gradients = |bias: Option<&Tensor>, together: bool| {
                let y = match together {
                    true => conv2d_relu(&x, &w, bias, case.geometry, upper).unwrap(),
                    false => clipped_relu(&conv2d(&x, &w, bias, case.geometry).unwrap(), upper).unwrap(),
                };
                let gy = noise(y.dims4().unwrap(), 4, dtype);
                let store = (&y * gy).unwrap().sum_all().unwrap().backward().unwrap();
                let of = |var: &Var| store.get(var).map(values);
                (values(&y), of(&x), of(&w), bias.and_then(|bias| store.get(bias).map(values)))
            };
            for bias in [Some(bias.as_tensor()), None] {
                assert_eq!(gradients(bias, true), gradients(bias, false), "{case:?} {dtype:?} {upper}");
            }
        }
    }
}
