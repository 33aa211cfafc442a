//! Compositions beside our kernels, on the CPU: the same values and gradients.

use super::views::Sliding;
use super::*;
use crate::ops::check::noise;
use crate::ops::conv::{Geometry, Padding, conv2d};
use crate::ops::fake_quant::{ClipOrder, FakeQuant, Linearised};
use crate::ops::rounding::{Levels, Regulariser, SoftWeight, hard_weight, soft_weight};
use crate::ops::{mix as fast_mix, recon_error as fast_error, relu as fast_relu};
use candle_core::{DType, Device, Var};
use std::sync::Arc;

/// A function of some tensors.
type Function<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    for (index, (a, b)) in values(a).into_iter().zip(values(b)).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}, element {index}: {a} and {b}");
    }
}

/// Values and first derivatives of the two functions, with an upstream gradient that differs everywhere.
#[track_caller]
fn assert_same(what: &str, inputs: &[Tensor], composed: Function, fast: Function, tolerance: f64) {
    let vars: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let [ours, theirs] = [composed, fast].map(|f| f(&tensors).unwrap());
    assert_close(what, &ours, &theirs, tolerance);
    let [ours, theirs] = [ours, theirs].map(|y| {
        let upstream = noise(y.dims(), 99, y.dtype());
        ((y * upstream).unwrap()).sum_all().unwrap().backward().unwrap()
    });
    for (index, var) in vars.iter().enumerate() {
        let what = format!("{what}, gradient of argument {index}");
        match (ours.get(var), theirs.get(var)) {
            (Some(ours), Some(theirs)) => assert_close(&what, ours, theirs, tolerance),
            (ours, theirs) => assert_eq!(ours.is_some(), theirs.is_some(), "{what}"),
        }
    }
}

/// Noise with values exactly on the bounds and halves, where formulas differ if they do.
fn with_edges(shape: &[usize], seed: u64, edges: &[f32]) -> Tensor {
    let mut values: Vec<f32> =
        values(&noise(shape, seed, DType::F32)).into_iter().map(|value| 4.0 * value as f32).collect();
    values.iter_mut().zip(edges).for_each(|(value, edge)| *value = *edge);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn masks(elements: usize) -> [Mask; 3] {
    let given = (0..elements).map(|i| u8::from(i % 3 == 0)).collect();
    [Mask::All, Mask::Keyed { key: [3, 5], threshold: u32::MAX / 2 }, Mask::Given(Arc::new(given))]
}

#[test]
fn rectified_linear_units() {
    let x = with_edges(&[3, 40], 1, &[0.0, 2.0, -0.0, 1.0]);
    for upper in [2.0, f32::INFINITY] {
        assert_same(
            "relu",
            std::slice::from_ref(&x),
            &|t| clipped_relu(&t[0], upper),
            &|t| fast_relu::clipped_relu(&t[0], upper),
            0.0,
        );
        let t = noise((3, 40), 2, DType::F32);
        let y = fast_relu::clipped_relu(&x, upper).unwrap();
        assert_same("gate", &[t], &|t| gate(&t[0], &y, upper), &|t| fast_relu::gate(&t[0], &y, upper), 0.0);
    }
}

#[test]
fn nan_is_not_hidden_behind_a_bound() {
    let x = Tensor::new(&[f32::NAN, 9.0, -9.0], &Device::Cpu).unwrap();
    let scale = Tensor::new(&[0.5f32], &Device::Cpu).unwrap();
    let clip = ClipOrder::RoundThenClip;
    let quant = FakeQuant { levels: (-2.0, 3.0), clip, scale_gradient_factor: 1.0, mask: Mask::All };
    let (zeros, one) =
        (Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap(), Tensor::new(&[1f32], &Device::Cpu).unwrap());
    let levels = Levels { floor: zeros, zero_point: one, highest: 3.0 };
    let weight = x.reshape((1, 3)).unwrap();
    for (what, y, bounds) in [
        ("relu", clipped_relu(&x, 6.0).unwrap(), [6.0, 0.0]),
        ("our relu", fast_relu::clipped_relu(&x, 6.0).unwrap(), [6.0, 0.0]),
        ("quantizer", fake_quant(&x, &scale, &quant).unwrap(), [1.5, -1.0]),
        ("our quantizer", crate::ops::fake_quant::fake_quant(&x, &scale, quant.clone()).unwrap(), [1.5, -1.0]),
        ("rounded weight", rounded_weight(&weight, &scale, &levels).unwrap(), [0.5, 0.0]),
        ("our hard weight", hard_weight(&weight, &scale, &levels).unwrap(), [0.5, 0.0]),
        ("our rounded weight", soft_weight(&weight, &scale, &levels, None).unwrap().weight, [0.5, 0.0]),
    ] {
        let y = values(&y);
        assert!(y[0].is_nan() && y[1..] == bounds, "{what}: {y:?}");
    }
}

#[test]
fn fake_quantization_with_every_mask_and_order_of_clipping() {
    let scale = Tensor::new(&[0.5f32], &Device::Cpu).unwrap();
    // Halves of the scale, both bounds, and what lies just outside of them.
    let edges = [0.25, 0.75, -0.25, 1.25, -1.0, 1.0, 1.5, -1.5, 1.24, 1.26, -1.24, -1.26];
    let x = with_edges(&[2, 3, 4, 250], 3, &edges);
    for clip in [ClipOrder::ClipThenRound, ClipOrder::RoundThenClip] {
        for mask in masks(x.elem_count()) {
            let quant = FakeQuant { levels: (-2.0, 3.0), clip, scale_gradient_factor: 0.1, mask };
            let fast = |t: &[Tensor]| crate::ops::fake_quant::fake_quant(&t[0], &t[1], quant.clone());
            let what = format!("{quant:?}").chars().take(120).collect::<String>();
            assert_same(&what, &[x.clone(), scale.clone()], &|t| fake_quant(&t[0], &t[1], &quant), &fast, 1e-5);
            let (slope, level) = linearised(&x, &scale, &quant).unwrap();
            let theirs = Linearised::at(&x, &scale, &quant).unwrap();
            assert_close("slope", &slope, &theirs.slope, 0.0);
            assert_close("level", &level, &theirs.level, 1e-6);
        }
    }
}

#[test]
fn soft_rounding_and_its_regulariser() {
    let scale = with_edges(&[4, 1], 7, &[0.1, 0.2, 0.3, 0.4]);
    let levels = Levels {
        floor: Tensor::from_iter((0..120).map(|i| (i % 6) as f32 - 3.0), &Device::Cpu).unwrap(),
        zero_point: Tensor::new(&[1f32, 2.0, 0.0, 1.0], &Device::Cpu).unwrap(),
        highest: 3.0,
    };
    let alpha = with_edges(&[4, 30], 5, &[0.0, 20.0, -20.0, 90.0, -90.0]);
    for regulariser in [None, Some(2.0), Some(7.3), Some(20.0)] {
        let regulariser = regulariser.map(|beta| Regulariser { beta, weight: 0.1 });
        // What a step minimises: the weight's share of the error, and the regulariser.
        let loss = |weight: Tensor, penalty: Option<Tensor>| -> Result<Tensor> {
            let error = (&weight * noise(weight.dims(), 8, DType::F32))?.sum_all()?;
            penalty.map_or(Ok(error.clone()), |penalty| error + penalty)
        };
        let composed = |t: &[Tensor]| {
            let r = stretched_sigmoid(&t[0], 1.2, -0.1)?;
            let penalty = regulariser.map(|regulariser| rounding_regulariser(&r, regulariser)).transpose()?;
            loss(rounded_weight(&r, &t[1], &levels)?, penalty)
        };
        let fast = |t: &[Tensor]| {
            let SoftWeight { weight, penalty } = soft_weight(&t[0], &t[1], &levels, regulariser)?;
            loss(weight, penalty)
        };
        let values: [Tensor; 2] = [
            rounded_weight(&stretched_sigmoid(&alpha, 1.2, -0.1).unwrap(), &scale, &levels),
            soft_weight(&alpha, &scale, &levels, regulariser).map(|soft| soft.weight),
        ]
        .map(Result::unwrap);
        assert_close("weight", &values[0], &values[1], 1e-5);
        let upstream_of_one = [&composed as Function, &fast].map(|f| {
            let vars = [&alpha, &scale].map(|input| Var::from_tensor(input).unwrap());
            let loss = f(&vars.clone().map(|var| var.as_tensor().clone())).unwrap();
            let mut gradients = loss.backward().unwrap();
            (loss, vars.map(|var| gradients.remove(&var).unwrap()))
        });
        let [(ours, ours_of), (theirs, theirs_of)] = &upstream_of_one;
        assert_close("loss", ours, theirs, 1e-4);
        for (ours, theirs) in ours_of.iter().zip(theirs_of) {
            assert_close("gradient", ours, theirs, 1e-4);
        }
    }
    let up = alpha.ge(0f64).unwrap().to_dtype(DType::F32).unwrap();
    let [ours, theirs] = [rounded_weight(&up, &scale, &levels), hard_weight(&alpha, &scale, &levels)];
    assert_close("hard weight", &ours.unwrap(), &theirs.unwrap(), 0.0);
}

#[test]
fn reconstruction_error_and_mixed_rows() {
    let [y_q, y_fp, weight] = [1, 2, 3].map(|seed| noise((3, 4, 5, 6), seed, DType::F32));
    for (weight, p) in [(None, 2.0), (None, 2.4), (Some(&weight), 2.0)] {
        let means = (3 * 5 * 6) as f64;
        let fast = |t: &[Tensor]| fast_error::recon_error(&t[0], &y_fp, weight, p);
        assert_same("error", std::slice::from_ref(&y_q), &|t| recon_error(&t[0], &y_fp, weight, p, means), &fast, 1e-4);
    }
    let rows = [2, 0, 2, 1];
    for mask in masks(4 * 4 * 5 * 6) {
        let [ours, theirs] = [mix_rows(&y_q, &y_fp, &rows, &mask), fast_mix::mix_rows(&y_q, &y_fp, &rows, &mask)];
        assert_close("rows", &ours.unwrap(), &theirs.unwrap(), 0.0);
    }
}

#[test]
fn convolutions_in_groups() {
    for (channels, groups, kernel, stride, padding) in [
        (6, 6, 3, 1, 1),
        (6, 6, 3, 2, 1),
        (4, 4, 5, 2, 2),
        (6, 6, 1, 1, 0),
        (6, 3, 3, 1, 1),
        (8, 2, 3, 2, 1),
        (8, 2, 1, 2, 0),
    ] {
        for (h, w) in [(9, 7), (8, 8)] {
            let x = noise((2, channels, h, w), 1, DType::F64);
            let weight = noise((channels, channels / groups, kernel, kernel), 2, DType::F64);
            let out = |size: usize| (size + 2 * padding - kernel) / stride + 1;
            let sliding = Sliding { kernel: (kernel, kernel), stride, padding, out: (out(h), out(w)) };
            let composed = |t: &[Tensor]| match groups == channels {
                true => depthwise_conv2d(&t[0], &t[1], sliding),
                false => grouped_conv2d(&t[0], &t[1], groups, sliding),
            };
            let fast = |t: &[Tensor]| {
                conv2d(&t[0], &t[1], None, Geometry { stride, padding: Padding::Each(padding), groups })
                    .map_err(candle_core::Error::wrap)
            };
            assert_same(&format!("{sliding:?} {groups}"), &[x, weight], &composed, &fast, 1e-12);
        }
    }
}
