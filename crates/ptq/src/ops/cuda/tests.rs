//! Every operation on a GPU beside the CPU: values, gradients, and the same bits again. These tests need a GPU.

use super::launch::open;
use super::range::Searched;
use crate::error::Result;
use crate::ops::adam::{self, AdamState};
use crate::ops::ahead::ahead;
use crate::ops::check::noise;
use crate::ops::conv::{Geometry, Padding, conv2d, conv2d_relu, input_gradient, weight_gradient};
use crate::ops::fake_quant::{ClipOrder, FakeQuant, Linearised, Mask, fake_quant};
use crate::ops::pinned::Pinned;
use crate::ops::pool::Pool;
use crate::ops::rounding::{Levels, Regulariser, SoftWeight, hard_weight, soft_weight};
use crate::ops::upload::Upload;
use crate::ops::{batch_norm, channels, layout, mix, pool, recon_error, relu, statistics};
use crate::quant::range_search::search_act;
use crate::recipe::RangeSearch;
use candle_core::{DType, Device, Tensor, Var};
use std::sync::OnceLock;

/// A function of some tensors.
type Function<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// One device for all tests, as in a run: kernels are loaded once.
fn gpu() -> Device {
    static GPU: OnceLock<Device> = OnceLock::new();
    GPU.get_or_init(|| open(0).unwrap()).clone()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

/// `|a - b| / |b|` in the Euclidean norm.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |terms: &mut dyn Iterator<Item = f64>| terms.map(|term| term * term).sum::<f64>().sqrt();
    let apart = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    match norm(&mut b.iter().map(|b| f64::from(*b))) {
        0.0 => apart,
        of_b => apart / of_b,
    }
}

/// Result and gradients on `device`, with an upstream gradient that differs everywhere.
fn outcome(device: &Device, inputs: &[Tensor], f: Function) -> Vec<Vec<f32>> {
    let vars: Vec<Var> =
        inputs.iter().map(|input| Var::from_tensor(&input.to_device(device).unwrap()).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let y = f(&tensors).unwrap();
    let upstream = noise(y.dims(), 99, DType::F32).to_device(device).unwrap();
    let gradients = (&y * upstream).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients = vars.iter().map(|var| gradients.get(var).map(values).unwrap_or_default());
    std::iter::once(values(&y)).chain(gradients).collect()
}

#[track_caller]
fn assert_same(what: &str, inputs: &[Tensor], f: Function, tolerance: f64) {
    let gpu = gpu();
    let [here, there, again] = [&Device::Cpu, &gpu, &gpu].map(|device| outcome(device, inputs, f));
    let distances: Vec<f64> = there.iter().zip(&here).map(|(there, here)| distance(there, here)).collect();
    let shown: Vec<String> = distances.iter().map(|distance| format!("{distance:.1e}")).collect();
    println!("| {what} | {} |", shown.join(", "));
    assert!(distances.iter().all(|distance| *distance <= tolerance), "{what}: {distances:?}");
    let bits = |tensors: &[Vec<f32>]| tensors.iter().flatten().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&there), bits(&again), "{what}: other bits when repeated");
}

/// Noise of several units with values on bounds and halves in front.
fn with_edges(shape: &[usize], seed: u64, edges: &[f32]) -> Tensor {
    let mut values: Vec<f32> = values(&noise(shape, seed, DType::F32)).into_iter().map(|value| 4.0 * value).collect();
    values.iter_mut().zip(edges).for_each(|(value, edge)| *value = *edge);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

#[test]
fn rectifiers_and_biases() {
    let x = with_edges(&[3, 5, 33, 41], 1, &[0.0, 2.0, -0.0, 1.0]);
    let other = noise(x.dims(), 2, DType::F32);
    let bias = noise(5, 3, DType::F32);
    for upper in [2.0, f32::INFINITY] {
        assert_same("relu", std::slice::from_ref(&x), &|t| Ok(relu::clipped_relu(&t[0], upper)?), 0.0);
        let inputs = [x.clone(), other.clone()];
        assert_same("relu of a sum", &inputs, &|t| Ok(relu::clipped_relu_of_sum(&t[0], &t[1], upper)?), 0.0);
    }
    assert_same("bias", &[x.clone(), bias], &|t| Ok(channels::add_bias(&t[0], &t[1])?), 1e-6);
    assert_same("channel sums", &[x], &|t| Ok(channels::channel_sums(&t[0])?), 1e-5);
}

#[test]
fn fake_quantization() {
    let scale = Tensor::new(&[0.5f32], &Device::Cpu).unwrap();
    let edges = [0.25, 0.75, -0.25, 1.25, -1.0, 1.0, 1.5, -1.5, 1.24, 1.26, -1.24, -1.26];
    let x = with_edges(&[2, 3, 64, 61], 3, &edges);
    for clip in [ClipOrder::ClipThenRound, ClipOrder::RoundThenClip] {
        for mask in [Mask::All, Mask::Keyed { key: [3, 5], threshold: u32::MAX / 2 }] {
            let quant = FakeQuant { levels: (-2.0, 3.0), clip, scale_gradient_factor: 0.1, mask };
            let f: Function = &|t| Ok(fake_quant(&t[0], &t[1], quant.clone())?);
            assert_same("fake quantization", &[x.clone(), scale.clone()], f, 1e-5);
            let linear: Function = &|t| {
                let at = Linearised::at(&t[0], &t[1], &quant)?;
                Ok(((&at.slope * &t[0])? + at.level.broadcast_mul(&t[1])?)?)
            };
            assert_same("linearised", &[x.clone(), scale.clone()], linear, 1e-5);
        }
    }
}

#[test]
fn rounding_of_weights() {
    let scale = Tensor::new(&[[0.1f32], [0.2], [0.3], [0.4], [0.5]], &Device::Cpu).unwrap();
    let alpha = with_edges(&[5, 301], 5, &[0.0, 20.0, -20.0, 90.0, -90.0]);
    let floor = Tensor::from_iter((0..5 * 301).map(|i| (i % 6) as f32 - 3.0), &Device::Cpu).unwrap();
    let zero_point = Tensor::new(&[1f32, 2.0, 0.0, 1.0, 3.0], &Device::Cpu).unwrap();
    let levels = |device: &Device| Levels {
        floor: floor.to_device(device).unwrap(),
        zero_point: zero_point.to_device(device).unwrap(),
        highest: 3.0,
    };
    for regulariser in [None, Some(2.0), Some(7.3), Some(20.0)] {
        let regulariser = regulariser.map(|beta| Regulariser { beta, weight: 0.1 });
        let f: Function = &|t| {
            let SoftWeight { weight, penalty } = soft_weight(&t[0], &t[1], &levels(t[0].device()), regulariser)?;
            // The penalty's gradient comes on the way of the weight's, with an upstream of one.
            let plain = weight.flatten_all()?;
            match penalty {
                Some(penalty) => Ok(Tensor::cat(&[&plain, &penalty.reshape(1)?], 0)?),
                None => Ok(plain),
            }
        };
        assert_same("soft rounding", &[alpha.clone(), scale.clone()], f, 1e-5);
    }
    let gpu = gpu();
    let [here, there] = [&Device::Cpu, &gpu].map(|device| {
        let [alpha, scale] = [&alpha, &scale].map(|tensor| tensor.to_device(device).unwrap());
        values(&hard_weight(&alpha, &scale, &levels(device)).unwrap())
    });
    assert_eq!(here, there);
}

#[test]
fn errors_and_mini_batches() {
    let [y, target, weight] = [1, 2, 3].map(|seed| noise((4, 7, 23, 25), seed, DType::F32));
    for (weighted, p) in [(false, 2.0), (false, 2.4), (true, 2.0)] {
        let f: Function = &|t| {
            let there = |tensor: &Tensor| tensor.to_device(t[0].device());
            let weight = weighted.then(|| there(&weight)).transpose()?;
            Ok(recon_error::recon_error(&t[0], &there(&target)?, weight.as_ref(), p)?)
        };
        assert_same("reconstruction error", std::slice::from_ref(&y), f, 1e-5);
    }
    let gpu = gpu();
    for mask in [Mask::All, Mask::Keyed { key: [7, 9], threshold: 1 << 30 }] {
        let [here, there] = [&Device::Cpu, &gpu].map(|device| {
            let [y, target] = [&y, &target].map(|tensor| tensor.to_device(device).unwrap());
            values(&mix::mix_rows(&y, &target, &[3, 0, 3, 1, 2], &mask).unwrap())
        });
        assert_eq!(here, there);
    }
}

#[test]
fn ranges_of_activations() {
    let gpu = gpu();
    // As many as a search leaves on the GPU: two-sided, rectified, with an outlier, and one that is no number.
    let plain: Vec<f32> = values(&noise((3, 5, 40, 41), 1, DType::F32));
    let rectified: Vec<f32> = plain.iter().map(|x| x.max(0.0)).collect();
    let [mut outlier, mut strange] = [plain.clone(), plain.clone()];
    (outlier[17], strange[18]) = (40.0, f32::NAN);
    for values in [plain, rectified, outlier, strange] {
        for (search, bits) in [
            (RangeSearch::MinMax, 8),
            (RangeSearch::Brecq, 4),
            (RangeSearch::Genie, 2),
            (RangeSearch::Qdrop, 2),
            (RangeSearch::Qdrop, 4),
        ] {
            let [here, there] = [&Device::Cpu, &gpu].map(|device| {
                let x = Tensor::from_slice(&values, values.len(), device).unwrap();
                assert_eq!(Searched::of(&x).unwrap().is_some(), device.is_cuda());
                search_act(&x, search, bits).unwrap()
            });
            assert_eq!(format!("{here:?}"), format!("{there:?}"), "{search:?} at {bits} bits");
        }
    }
}

#[test]
fn rows_of_the_host_that_are_fetched_ahead() {
    let gpu = gpu();
    let count = 150;
    let [a, b] = [1, 2].map(|seed| noise((count, 3, 5, 7), seed, DType::F32));
    let [a_there, b_there] = [&a, &b].map(|x| x.to_device(&gpu).unwrap());
    let [a_pinned, b_pinned] = [&a_there, &b_there].map(|x| {
        let mut rows = Pinned::new(x.dims(), &gpu).unwrap().unwrap();
        for start in (0..count).step_by(64) {
            rows.write(start, &x.narrow(0, start, 64.min(count - start)).unwrap()).unwrap();
        }
        assert!(rows.write(count, &x.narrow(0, 0, 1).unwrap()).is_err());
        rows
    });
    assert_eq!(values(&a_pinned.narrow(60, 70).unwrap()), values(&a.narrow(0, 60, 70).unwrap()));
    assert!(a_pinned.narrow(60, count).is_err());
    let draw = |t: u32| {
        let rows: Vec<u32> = (0..32).map(|i| (17 * t + 7 * i) % count as u32).collect();
        let mask = Mask::Keyed { key: [t, 9], threshold: 1 << 31 };
        let of_host = [
            mix::mix_rows(&a_pinned, &b_pinned, &rows, &mask).unwrap(),
            mix::mix_rows(&a_there, &b_pinned, &rows, &mask).unwrap(),
            mix::mix_rows(&b_pinned, &b_pinned, &rows, &Mask::All).unwrap(),
        ];
        let expected = [mix::mix_rows(&a, &b, &rows, &mask), mix::mix_rows(&b, &b, &rows, &Mask::All)];
        let [mixed, of_b] = expected.map(|tensor| values(&tensor.unwrap()));
        (of_host, [mixed.clone(), mixed, of_b])
    };
    let mut next = ahead(&gpu, || draw(0)).unwrap();
    for t in 0..50 {
        let (of_host, expected) = next.arrived();
        next = ahead(&gpu, || draw(t + 1)).unwrap();
        // Work of a step, which makes and frees memory.
        let products =
            (0..5).map(|_| values(&of_host[0].flatten_from(1).unwrap().sqr().unwrap().sum(1).unwrap()).len());
        assert_eq!(products.sum::<usize>(), 5 * 32);
        assert_eq!(of_host.each_ref().map(values), expected, "step {t}");
    }
    // Nothing is left open: what is cut now is there at once.
    let (of_host, expected) = draw(3);
    assert_eq!(of_host.each_ref().map(values), expected);
}

#[test]
fn batches_on_their_way_to_the_device() {
    let gpu = gpu();
    let mut upload = Upload::new(&gpu);
    let batches: Vec<Tensor> =
        (0..20).map(|batch| noise((if batch == 19 { 3 } else { 8 }, 5, 7), batch, DType::F32)).collect();
    // All of them on their way before the first is looked at.
    let there: Vec<Tensor> = batches.iter().map(|batch| upload.tensor(values(batch), batch.dims()).unwrap()).collect();
    for (there, batch) in there.iter().zip(&batches) {
        assert_eq!((there.dims(), values(there)), (batch.dims(), values(batch)));
    }
    let other = noise((9, 2), 1, DType::F32);
    assert_eq!(values(&upload.tensor(values(&other), other.dims()).unwrap()), values(&other));
    assert!(upload.tensor(values(&other), &[2, 2]).is_err());
}

#[test]
fn steps_of_adam() {
    let gpu = gpu();
    let moved = [&Device::Cpu, &gpu].map(|device| {
        let var = Var::from_tensor(&noise((3, 501), 1, DType::F32).to_device(device).unwrap()).unwrap();
        let state = AdamState::new(&var).unwrap();
        for t in 1..=20 {
            let gradient = noise((3, 501), 10 + t as u64, DType::F32).to_device(device).unwrap();
            adam::step(&[adam::Step { state: &state, gradient: &gradient, lr: 1e-2 }], t, 0.5).unwrap();
        }
        values(&var)
    });
    let distance = distance(&moved[1], &moved[0]);
    println!("| adam, 20 steps | {distance:.1e} |");
    assert!(distance < 1e-5, "{distance}");
}

#[test]
fn max_pooling_and_layouts() {
    let x = with_edges(&[2, 3, 31, 29], 4, &[1.0, 1.0, 1.0]);
    for (kernel, stride, padding) in [(3, 2, 1), (2, 2, 0), (3, 1, 1), (5, 3, 2)] {
        let pool = Pool { kernel, stride, padding };
        assert_same("max pooling", std::slice::from_ref(&x), &|t| pool::max_pool2d(&t[0], pool), 1e-6);
    }
    assert_same("average pooling", &[x], &|t| pool::global_avg_pool(&t[0]), 1e-5);
    let inputs = [noise((2, 8, 5, 7), 1, DType::F32), noise((2, 4, 5, 7), 2, DType::F32)];
    assert_same("pixel shuffle", &inputs[..1], &|t| Ok(layout::pixel_shuffle(&t[0])?), 0.0);
    assert_same("joined channels", &inputs, &|t| Ok(layout::join_channels(&t[0], &t[1])?), 0.0);
}

#[test]
fn statistics_of_batches_and_images() {
    let inputs = [noise((4, 3, 9, 11), 1, DType::F32), noise(3, 2, DType::F32), noise(3, 3, DType::F32)];
    let norm: Function = &|t| Ok(batch_norm::batch_norm_train(&t[0], &t[1], &t[2], 1e-5)?.0);
    assert_same("batch normalisation", &inputs, norm, 1e-4);
    let error: Function = &|t| {
        let there = |tensor: Tensor| tensor.to_device(t[0].device());
        let mean = there(Tensor::new(&[0.1f32, -0.1, 0.2], &Device::Cpu)?)?;
        let var = there(Tensor::new(&[0.5f32, 0.3, 0.1], &Device::Cpu)?)?;
        Ok(statistics::statistics_error(&t[0], &statistics::Statistics::new(&mean, &var)?)?)
    };
    assert_same("statistics error", &inputs[..1], error, 1e-4);
}

#[test]
fn convolutions_of_every_kind() {
    for (c_in, c_out, groups, kernel, stride, padding, size) in [
        (16, 24, 1, 3, 1, Padding::Each(1), 19),
        (16, 24, 1, 3, 2, Padding::Each(1), 19),
        (3, 32, 1, 7, 2, Padding::Each(3), 57),
        (64, 128, 1, 1, 1, Padding::Each(0), 14),
        (64, 128, 1, 1, 2, Padding::Each(0), 15),
        (48, 48, 2, 3, 1, Padding::Each(1), 14),
        (48, 48, 3, 3, 2, Padding::Each(1), 15),
        (32, 32, 32, 3, 1, Padding::Each(1), 28),
        (32, 32, 32, 3, 2, Padding::Each(1), 29),
        (24, 24, 24, 5, 2, Padding::Each(2), 21),
        (3, 32, 1, 3, 2, Padding::Same, 56),
        (32, 32, 32, 3, 2, Padding::Same, 28),
        (24, 24, 24, 5, 2, Padding::Same, 20),
        // Without cuDNN there is room for the columns of two images at a time.
        (8, 2, 1, 3, 1, Padding::Each(1), 560),
    ] {
        let geometry = Geometry { stride, padding, groups };
        let x = noise((4, c_in, size, size - 2), 1, DType::F32);
        let w = noise((c_out, c_in / groups, kernel, kernel), 2, DType::F32);
        let bias = noise(c_out, 3, DType::F32);
        let what = format!("conv {c_in}-{c_out}/{groups}, {kernel}x{kernel}, stride {stride}, {padding:?}");
        let plain: Function = &|t| conv2d(&t[0], &t[1], None, geometry);
        assert_same(&what, &[x.clone(), w.clone()], plain, 1e-5);
        // A rectifier's gate depends on rounding where a sum is close to its bounds.
        let rectified: Function = &|t| conv2d_relu(&t[0], &t[1], Some(&t[2]), geometry, 6.0);
        assert_same(&format!("{what}, bias, relu6"), &[x.clone(), w.clone(), bias], rectified, 2e-2);
        let y = conv2d(&x, &w, None, geometry).unwrap();
        let gy = noise(y.dims(), 4, DType::F32);
        let to_input: Function = &|t| input_gradient(&t[0], &t[1], (size, size - 2), geometry);
        assert_same(&format!("{what}, input gradient"), &[gy.clone(), w.clone()], to_input, 1e-5);
        let to_weight: Function = &|t| weight_gradient(&t[0], &t[1], (kernel, kernel), geometry);
        assert_same(&format!("{what}, weight gradient"), &[x, gy], to_weight, 1e-5);
    }
}
