use super::*;
use crate::ops::channels::add_bias;
use crate::ops::check::noise;
use crate::ops::conv::{Geometry, Padding, conv2d};
use crate::ops::padded_identity::padded_identity;
use crate::ops::relu::{clipped_relu_of_sum, relu};
use candle_core::{DType, Var};
use std::cell::Cell;

thread_local! {
    static DETOURS: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn count_detour() {
    DETOURS.set(DETOURS.get() + 1);
}

/// How often gradients were Candle's on this thread while `f` ran.
pub(crate) fn detours(f: impl FnOnce()) -> usize {
    let before = DETOURS.get();
    f();
    DETOURS.get() - before
}

fn var(shape: &[usize], seed: u64) -> Var {
    Var::from_tensor(&noise(shape, seed, DType::F32)).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// That the gradients of `y` weighted by noise have the bits of Candle's, and need no detour.
fn as_candle(name: &str, vars: &[&Var], y: impl Fn() -> Result<Tensor>) {
    let _recording = Recording::begin();
    let y = y().unwrap();
    let upstream = noise(y.dims(), 9, DType::F32);
    let mut ours = None;
    assert_eq!(detours(|| ours = Some(gradients_from(&y, &upstream).unwrap())), 0, "{name}");
    let theirs = (&y * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
    for (index, var) in vars.iter().enumerate() {
        let ours = ours.as_ref().unwrap().get(var).map(bits);
        assert!(ours.is_some() && ours == theirs.get(var).map(bits), "{name}, argument {index}");
    }
}

#[test]
fn every_noted_operation_has_the_value_and_the_gradients_of_candles() {
    type Noted = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let pairs: [(&str, [&[usize]; 2], Noted, Noted); 7] = [
        ("add", [&[3, 4], &[3, 4]], plain::add, |a, b| a + b),
        ("sub", [&[3, 4], &[3, 4]], plain::sub, |a, b| a - b),
        ("mul", [&[3, 4], &[3, 4]], plain::mul, |a, b| a * b),
        ("broadcast add", [&[2, 3, 4], &[3, 1]], plain::broadcast_add, |a, b| a.broadcast_add(b)),
        ("broadcast mul", [&[2, 3, 4], &[4]], plain::broadcast_mul, |a, b| a.broadcast_mul(b)),
        ("broadcast div", [&[2, 3, 4], &[3, 1]], plain::broadcast_div, |a, b| a.broadcast_div(b)),
        ("matmul", [&[3, 4], &[4, 5]], plain::matmul, |a, b| a.matmul(b)),
    ];
    for (name, shapes, noted, own) in pairs {
        let (a, b) = (var(shapes[0], 1), var(shapes[1], 2));
        assert_eq!(bits(&noted(&a, &b).unwrap()), bits(&own(&a, &b).unwrap()), "{name}");
        as_candle(name, &[&a, &b], || noted(&a, &b));
        let constant = b.as_detached_tensor();
        as_candle(name, &[&a], || noted(&a, &constant));
    }
    let (a, b) = (var(&[2, 3], 3), var(&[4, 3], 4));
    as_candle("stacked rows", &[&a, &b], || plain::stacked_rows(&a, &b));

    type One = fn(&Tensor) -> Result<Tensor>;
    let rows = |x: &Tensor| plain::index_rows(x, &Tensor::new(&[2u32, 0, 2], x.device())?);
    let ones: [(&str, One, One); 18] = [
        ("exp", plain::exp, |x| x.exp()),
        ("neg", plain::neg, |x| x.neg()),
        ("sqr", plain::sqr, |x| x.sqr()),
        ("affine", |x| plain::affine(x, 0.7, -2.0), |x| x.affine(0.7, -2.0)),
        ("t", plain::t, |x| x.t()),
        ("reshape", |x| plain::reshape(x, (8, 15)), |x| x.reshape((8, 15))),
        ("flatten", |x| plain::flatten_from(x, 1), |x| x.flatten_from(1)),
        ("flatten what is flat", |x| plain::flatten_from(&plain::sqr(x)?, 3), |x| x.sqr()),
        ("reshape to the same", |x| plain::reshape(&plain::sqr(x)?, x.shape()), |x| x.sqr()),
        ("all rows", |x| plain::narrow(&plain::sqr(x)?, 0, 0, x.dim(0)?), |x| x.sqr()),
        ("contiguous", |x| plain::contiguous(&plain::t(x)?), |x| x.t()?.contiguous()),
        ("sum", plain::sum_all, |x| x.sum_all()),
        ("mean", plain::mean_of_planes, |x| x.mean_keepdim((2, 3))),
        ("narrow", |x| plain::narrow(x, 1, 1, 1), |x| x.narrow(1, 1, 1)),
        ("pad", |x| plain::pad_with_zeros(x, 2, 2, 1), |x| x.pad_with_zeros(2, 2, 1)),
        ("pad by nothing", |x| plain::pad_with_zeros(&plain::sqr(x)?, 2, 0, 0), |x| x.sqr()),
        ("permute", plain::first_dimension_last, |x| x.permute((1, 2, 3, 0))),
        ("rows", rows, |x| x.index_select(&Tensor::new(&[2u32, 0, 2], x.device())?, 0)),
    ];
    for (name, noted, own) in ones {
        let x = var(&[3, 2, 4, 5], 5);
        assert_eq!(bits(&noted(&x).unwrap()), bits(&own(&x).unwrap()), "{name}");
        as_candle(name, &[&x], || noted(&x));
    }
}

/// A residual block whose input and weight are used more than once.
fn block(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let geometry = Geometry { stride: 1, padding: Padding::Each(1), groups: 1 };
    let conv = |x: &Tensor| conv2d(x, w, None, geometry).map_err(candle_core::Error::wrap);
    let inner = relu(&add_bias(&conv(x)?, bias)?)?;
    let sum = clipped_relu_of_sum(&add_bias(&conv(&inner)?, bias)?, x, 6.0)?;
    plain::add(&plain::add(&sum, x)?, &plain::mul(&sum, &inner)?)
}

#[test]
fn values_that_are_used_more_than_once_get_the_sum_of_their_gradients_in_candles_order() {
    let (x, w, bias) = (var(&[2, 3, 5, 6], 1), var(&[3, 3, 3, 3], 2), var(&[3], 3));
    as_candle("block", &[&x, &w, &bias], || block(&x, &w, &bias));
}

#[test]
fn a_shortcut_without_parameters_needs_no_detour() {
    let x = var(&[2, 3, 7, 6], 1);
    as_candle("padded identity", &[&x], || padded_identity(&x, 2, 1).map_err(candle_core::Error::wrap));
}

#[test]
fn an_operation_without_a_note_is_a_detour_and_not_a_gradient_less() {
    let x = var(&[3, 4], 1);
    let _recording = Recording::begin();
    let y = plain::sum_all(&plain::sqr(&plain::sqr(&x).unwrap().exp().unwrap()).unwrap()).unwrap();
    let mut ours = None;
    assert_eq!(detours(|| ours = Some(gradients(&y).unwrap())), 1);
    assert_eq!(bits(ours.unwrap().get(&x).unwrap()), bits(y.backward().unwrap().get(&x).unwrap()));
}

#[test]
fn notes_last_as_long_as_the_recording_in_which_they_were_made() {
    let x = var(&[3, 4], 1);
    let needs_detour = |y: &Tensor| detours(|| drop(gradients(y).unwrap())) == 1;
    let sum = |x: &Tensor| plain::sum_all(x).unwrap();
    let unrecorded = sum(&x);
    let outer = Recording::begin();
    let before = sum(&x);
    let inner = Recording::begin();
    let within = plain::sqr(&before).unwrap();
    assert!(needs_detour(&unrecorded) && !needs_detour(&before) && !needs_detour(&within));
    // Gradients can be asked for again.
    assert!(!needs_detour(&within));
    drop(inner);
    assert!(!needs_detour(&before) && needs_detour(&within));
    drop(outer);
    assert!(needs_detour(&before));
    assert!(TAPE.with_borrow(|tape| tape.notes.is_empty() && tape.order.is_empty() && tape.recordings == 0));
}

#[test]
fn gradients_make_no_notes_of_their_own() {
    let (x, w) = (var(&[2, 3, 5, 5], 1), var(&[4, 3, 3, 3], 2));
    let geometry = Geometry { stride: 1, padding: Padding::Same, groups: 1 };
    let _recording = Recording::begin();
    let y = conv2d(&x, &w, None, geometry).unwrap();
    let notes = || TAPE.with_borrow(|tape| tape.order.len());
    let made = notes();
    drop(gradients_from(&y, &noise(y.dims(), 3, DType::F32)).unwrap());
    assert!(made > 0 && notes() == made);
}

#[test]
fn a_scalar_function_is_differentiated_by_candle() {
    let x = var(&[3, 4], 1);
    let f = |x: &Tensor| x.exp()?.sum_all()?.log();
    let direct = f(&x).unwrap();
    let _recording = Recording::begin();
    let noted: Tensor = scalar(&plain::affine(&x, 1.0, 0.0).unwrap(), f).unwrap();
    assert_eq!(bits(&noted), bits(&direct));
    let loss = plain::affine(&noted, 3.0, 0.0).unwrap();
    let mut ours = None;
    assert_eq!(detours(|| ours = Some(gradients(&loss).unwrap())), 0);
    let expected = (direct * 3.0).unwrap().backward().unwrap();
    let (ours, expected) = (ours.unwrap(), expected.get(&x).unwrap().clone());
    let apart = (ours.get(&x).unwrap() - expected).unwrap().abs().unwrap().max_all().unwrap();
    assert!(apart.to_scalar::<f32>().unwrap() < 1e-6);
    assert!(scalar(&x, |x| x.sqr()).unwrap_err().to_string().contains("shape [3, 4]"));
}
