use super::*;
use crate::arch::layout::TORCHVISION;
use crate::arch::{self, ArchSpec, made_up};
use crate::error::{Error, Result};
use crate::graph::fold_bn::fold_bn;
use crate::graph::{Network, Op};
use crate::methods::METHODS;
use crate::ops::check::noise;
use crate::quant::model::{Mode, QuantModel};
use crate::quantize::added::Added;
use crate::quantize::{Calibration, quantize};
use crate::recipe::{Granularity, Prefix, RangeSearch, Recipe, Setting};
use crate::recon::activations::Memory;
use crate::recon::event::Control;
use candle_core::{DType, Device};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

const IMAGES: usize = 4;

fn trained(arch: &'static ArchSpec) -> Network {
    let tensors = made_up::tensors(arch, &TORCHVISION).unwrap();
    arch::load(arch, tensors, "made-up", &Device::Cpu).unwrap()
}

fn images(arch: &ArchSpec, side: usize) -> Tensor {
    noise((IMAGES, arch.images[0], side, side), 3, DType::F32)
}

/// A network quantized by two steps of everything that `recipe` learns.
fn quantized(arch: &'static ArchSpec, side: usize, recipe: &Recipe, bits: Bits) -> QuantModel {
    let trained = trained(arch);
    let images = images(arch, side);
    let recipe = Recipe {
        iterations: if recipe.granularity == Granularity::None { 0 } else { 2 },
        batch: 2,
        act_search_images: IMAGES,
        correction_iterations: recipe.correction_iterations.min(1),
        // Large steps, so that what is learned is not what it starts from.
        alpha_lr: if recipe.alpha_lr == 0.0 { 0.0 } else { 0.3 },
        weight_scale_lr: if recipe.weight_scale_lr == 0.0 { 0.0 } else { 1e-3 },
        ..recipe.clone()
    };
    let network = fold_bn(&trained, recipe.batch_norm).unwrap();
    let memory = Memory::unlimited();
    let calib = Calibration { images: &images, memory: &memory, trained: &trained, added: Added::default() };
    let control = Control { observe: &|_| (), cancelled: &AtomicBool::new(false) };
    quantize(&network, &calib, (bits, Setting::Qdrop), &recipe, 0, &control).unwrap()
}

fn bits_of(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn saved(model: &QuantModel, arch: &ArchSpec, side: usize, recipe: &Recipe, bits: Bits) -> Saved {
    save(model, arch.name, [arch.images[0], side, side], (bits, recipe.batch_norm)).unwrap()
}

fn loaded(saved: &Saved) -> Result<QuantModel> {
    load(&saved.description, saved.tensors.clone().into_iter().collect(), "a file", &Device::Cpu)
}

/// Saves, loads, and compares logits and what is saved again, bit for bit.
#[track_caller]
fn check(arch: &'static ArchSpec, side: usize, recipe: &Recipe, bits: &str) {
    let bits: Bits = bits.parse().unwrap();
    let model = quantized(arch, side, recipe, bits);
    let saved = saved(&model, arch, side, recipe, bits);
    let again = loaded(&saved).unwrap();
    let x = images(arch, side);
    let [before, after] = [&model, &again].map(|model| bits_of(&model.logits(&x, Mode::HARD).unwrap()));
    assert!(before.iter().any(|bits| *bits != before[0]), "{} computes nothing", arch.name);
    assert_eq!(before, after, "{} {bits}", arch.name);
    let twice = self::saved(&again, arch, side, recipe, bits);
    assert_eq!(twice.description, saved.description);
    assert_eq!(twice.tensors.keys().collect::<Vec<_>>(), saved.tensors.keys().collect::<Vec<_>>());
}

#[test]
fn networks_of_every_method_come_back_bit_for_bit() {
    for method in METHODS {
        for (name, bits) in
            [("resnet20", "W2A2"), ("resnet20", "W3A8"), ("mobilenetv2-tiny", "W4A4"), ("mobilenetv2-tiny", "W8A2")]
        {
            let arch = arch::find(name).unwrap();
            check(arch, 28, &(method.recipe)(arch), bits);
        }
    }
}

#[test]
fn networks_of_every_width_with_batch_norm_folded_or_kept_come_back_bit_for_bit() {
    let arch = arch::find("resnet20").unwrap();
    let qdrop = (crate::methods::find("qdrop").unwrap().recipe)(arch);
    for batch_norm in [BatchNormMode::Folded, BatchNormMode::Kept] {
        for rounding in [crate::recipe::RoundingName::Adaround, crate::recipe::RoundingName::Flexround] {
            for bits in ["W2A4", "W5A5", "W6A3", "W7A7", "W4A32", "W32A4", "W32A32"] {
                let search = RangeSearch::MinMax;
                let recipe =
                    Recipe { batch_norm, rounding, weight_search: search, act_search: search, ..qdrop.clone() };
                check(arch, 28, &recipe, bits);
            }
        }
    }
}

#[test]
fn networks_of_every_family_come_back_bit_for_bit() {
    for (name, method) in [
        ("resnet18", "rtn"),
        ("regnetx-600m", "genie-m"),
        ("mnasnet1-0", "brecq"),
        ("mobilenetv1", "rtn"),
        ("efficientnet-lite0", "rtn"),
        ("resnet32-identity", "genie-m"),
    ] {
        let arch = arch::find(name).unwrap();
        let published = (crate::methods::find(method).unwrap().recipe)(arch);
        let search = RangeSearch::MinMax;
        let recipe = Recipe {
            granularity: Granularity::None,
            unit_input: Prefix::Quantized,
            weight_search: search,
            act_search: search,
            ..published
        };
        check(arch, 40, &recipe, "W4A4");
    }
}

/// A small network with something of everything.
fn sample() -> Saved {
    let arch = arch::find("mobilenetv2-tiny").unwrap();
    let search = RangeSearch::MinMax;
    let recipe = Recipe { weight_search: search, act_search: search, ..(METHODS[0].recipe)(arch) };
    let bits = Bits { w: 3, a: 4 };
    saved(&quantized(arch, 28, &recipe, bits), arch, 28, &recipe, bits)
}

/// The problems of the sample after `edit`.
fn problems(sample: &Saved, edit: impl Fn(&mut Saved)) -> String {
    let mut edited = sample.clone();
    edit(&mut edited);
    match loaded(&edited) {
        Err(Error::Weights { problems, .. }) => problems.join("; "),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was taken"),
    }
}

/// Replaces a tensor.
fn put(name: &str, tensor: Tensor) -> impl Fn(&mut Saved) + use<> {
    let name = name.to_string();
    move |saved| drop(saved.tensors.insert(name.clone(), tensor.clone()))
}

/// Takes a tensor away.
fn remove(name: &str) -> impl Fn(&mut Saved) + use<> {
    let name = name.to_string();
    move |saved| drop(saved.tensors.remove(&name))
}

#[test]
fn what_does_not_fit_is_an_error_that_names_it() {
    let sample = sample();
    let unit = 1;
    let entry = sample.description.units[unit].weights[0].clone();
    let (node, name) = (entry.node.clone(), sample.description.units[unit].name.clone());
    let levels = format!("{node}.{LEVELS}");
    let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
    let scales = sample.tensors[&format!("{node}.{SCALE}")].to_vec1::<f32>().unwrap();
    let changed = |value: f32| {
        tensor(&scales.iter().enumerate().map(|(i, s)| if i == 1 { value } else { *s }).collect::<Vec<_>>())
    };
    let (scale_name, bias_name) = (format!("{node}.{SCALE}"), format!("{node}.bias"));
    let (zero_point_name, act_name) = (format!("{node}.{ZERO_POINT}"), format!("{name}.{ACT_SCALE}"));
    let check = |expected: &str, edit: &dyn Fn(&mut Saved)| {
        let problems = problems(&sample, edit);
        assert!(problems.contains(expected), "{expected}: {problems}");
    };
    check("there is no architecture \"resnet19\"", &|s| s.description.architecture = "resnet19".into());
    check("the units are", &|s| s.description.architecture = "resnet20".into());
    check("the units are", &|s| s.description.units.truncate(2));
    check("11 classes are described, the weights have 10", &|s| s.description.classes = 11);
    check("3 channels are described", &|s| s.description.input[0] = 3);
    for (bits, problem) in [(9, "levels of 9 bits"), (1, "levels of 1 bits"), (4, "levels of 4 bits take")] {
        check(problem, &|s| s.description.units[unit].weights[0].bits = Some(bits));
    }
    for (shape, problem) in [
        (vec![usize::MAX, 3, 3, 3], "more than there can be"),
        (vec![0, 3, 3, 3], "has no elements"),
        (entry.shape.iter().rev().copied().collect(), "has weight.scale of shape"),
        ([&entry.shape[..], &[1]].concat(), "has shape ["),
    ] {
        check(problem, &|s| s.description.units[unit].weights[0].shape.clone_from(&shape));
    }
    check("is missing weight.levels", &|s| s.description.units[unit].weights.push(entry.clone()));
    check("is missing weight.levels", &remove(&levels));
    check("has weight.levels of f32", &put(&levels, changed(0.5)));
    check("has weight.scale with NaN", &put(&scale_name, changed(f32::NAN)));
    check("a zero point that is no whole number", &put(&zero_point_name, changed(0.5)));
    check("unexpected left.over", &put("left.over", changed(0.5)));
    check(&format!("{bias_name} is missing"), &remove(&bias_name));
    check("holds u8", &put(&bias_name, Tensor::zeros(scales.len(), DType::U8, &Device::Cpu).unwrap()));
    check(&format!("{act_name} is missing"), &remove(&act_name));
    check(&format!("{act_name} has shape"), &|s| drop(s.description.units[unit].activations.pop()));
    check("has a scale of 0", &put(&act_name, sample.tensors[&act_name].zeros_like().unwrap()));
    check("levels of 0 bits", &|s| s.description.units[unit].activations[0].bits = 0);
    check("which the unit has not", &|s| s.description.units[unit].activations[0].at[0].node = "elsewhere".into());
    check("input 7 of", &|s| s.description.units[unit].activations[0].at[0].input = Some(7));
    check("where another is", &|s| {
        let at = &mut s.description.units[unit].activations[0].at;
        at.push(at[0].clone());
    });
}

#[test]
fn a_weight_of_another_node_and_another_network_s_are_refused() {
    let sample = sample();
    let problems = problems(&sample, |s| {
        let weights = &mut s.description.units[1].weights;
        let (first, second) = (weights[0].node.clone(), weights[1].node.clone());
        (weights[0].node, weights[1].node) = (second, first);
    });
    assert!(!problems.is_empty());
    let nothing = load(&sample.description, HashMap::new(), "a file", &Device::Cpu).unwrap_err().to_string();
    assert!(nothing.starts_with("a file: weights of mobilenetv2-tiny do not fit"), "{nothing}");
}

#[test]
fn layers_say_what_they_take_and_how_near_they_are() {
    let arch = arch::find("resnet20").unwrap();
    let recipe = (METHODS[0].recipe)(arch);
    let trained = fold_bn(&trained(arch), recipe.batch_norm).unwrap();
    let ratios = |bits: &str| {
        let bits: Bits = bits.parse().unwrap();
        let model = quantized(arch, 28, &recipe, bits);
        let layers = layers(&loaded(&saved(&model, arch, 28, &recipe, bits)).unwrap(), Some(&trained)).unwrap();
        assert_eq!(layers.len(), 22);
        let (stem, conv) = (&layers[0], &layers[1]);
        assert_eq!((stem.bits, conv.bits, conv.weights()), (Some(8), Some(bits.w), 16 * 16 * 9));
        assert_eq!(conv.bytes, 16 * 16 * 9 * bits.w as usize / 8 + 16 * 8);
        (stem.sqnr_db.unwrap(), conv.sqnr_db.unwrap())
    };
    let (two, four) = (ratios("W2A2"), ratios("W4A4"));
    // 6 dB a bit.
    assert!(
        two.0 > 35.0 && (3.0..15.0).contains(&two.1) && (8.0..16.0).contains(&(four.1 - two.1)),
        "{two:?} {four:?}"
    );
    let full = layers(&quantized(arch, 28, &recipe, "W32A4".parse().unwrap()), Some(&trained)).unwrap();
    assert_eq!((full[3].bits, full[3].sqnr_db), (None, Some(f64::INFINITY)));
    let mut other = trained.clone();
    other.units[1].nodes.retain(|node| !matches!(node.op, Op::Conv(_)));
    let model = quantized(arch, 28, &recipe, "W8A8".parse().unwrap());
    assert!(
        layers(&model, Some(&other))
            .unwrap_err()
            .to_string()
            .contains("the full-precision network has no layer1.0.conv1")
    );
    assert!(layers(&model, None).unwrap()[0].sqnr_db.is_none());
}
