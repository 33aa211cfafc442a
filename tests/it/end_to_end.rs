//! Real networks on real images, in the smallest form that shows that they work.

use candle_core::{DType, Device, Tensor};
use metaaug::assets::checkpoint::load_weights;
use metaaug::assets::source::EMBEDDED;
use metaaug::data::{self, Request, Split};
use metaaug::hub::Hub;
use metaaug::launch::{EVAL_BATCH, predict, top1};
use ptq::arch::ARCHS;
use ptq::graph::Network;
use ptq::graph::fold_bn::fold_bn;
use ptq::meta::config::Meta;
use ptq::meta::nets::{NETS, TransformNet};
use ptq::meta::nets::{NetName, Transform};
use ptq::meta::terms::Terms;
use ptq::meta::train::Trainable;
use ptq::meta::warm_up::warmed_up;
use ptq::methods::METHODS;
use ptq::quant::model::{Mode, QuantModel};
use ptq::quantize::added::Added;
use ptq::quantize::{Calibration, quantize};
use ptq::recipe::{Bits, Setting};
use ptq::recipe::{Granularity, Loss, Recipe};
use ptq::recon::activations::Memory;
use ptq::recon::event::Control;
use ptq::recon::trace::{Traces, UnitTrace};
use ptq::rng::Stream;
use std::sync::atomic::AtomicBool;

static RUNNING: AtomicBool = AtomicBool::new(false);
pub static CONTROL: Control = Control { observe: &|_| (), cancelled: &RUNNING };

pub fn network(arch: &'static ptq::arch::ArchSpec) -> Network {
    let checkpoint = load_weights(EMBEDDED, arch, "fashion-mnist", &Device::Cpu, &Hub::silent()).unwrap();
    ptq::arch::load(arch, checkpoint.tensors, &checkpoint.source, &Device::Cpu).unwrap()
}

/// The first `n` test images.
fn test_split(n: usize) -> Split {
    data::find("fashion-mnist").unwrap().load(&Request::default(), &Device::Cpu).unwrap().test.first(n).unwrap()
}

fn accuracy(model: &QuantModel, test: &Split) -> f64 {
    let predictions = predict(test, EVAL_BATCH, &CONTROL, |x| {
        model.units.iter().try_fold(x.clone(), |x, unit| unit.forward(&x, Mode::HARD))
    });
    top1(&predictions.unwrap(), &test.labels)
}

/// The network quantized on `images` alone, with the losses of its units.
fn quantized(
    trained: &Network,
    images: &Tensor,
    bits: (Bits, Setting),
    recipe: &Recipe,
) -> (QuantModel, Vec<UnitTrace>) {
    quantized_within(&Memory::unlimited(), trained, images, bits, recipe)
}

/// The same with activations in memory as far as `memory` goes.
fn quantized_within(
    memory: &Memory,
    trained: &Network,
    images: &Tensor,
    bits: (Bits, Setting),
    recipe: &Recipe,
) -> (QuantModel, Vec<UnitTrace>) {
    let folded = fold_bn(trained, recipe.batch_norm).unwrap();
    let traces = Traces::default();
    let control = Control { observe: &|event| traces.note(&event), cancelled: &RUNNING };
    let calib = Calibration { images, memory, trained, added: Added::default() };
    let model = quantize(&folded, &calib, bits, recipe, 0, &control).unwrap();
    (model, traces.finish())
}

#[test]
fn every_method_keeps_four_bits_close_to_full_precision() {
    let calib = data::find("fashion-mnist")
        .unwrap()
        .load(&Request::default(), &Device::Cpu)
        .unwrap()
        .calibration(64, 0)
        .unwrap();
    let test = test_split(500);
    for arch in ARCHS.iter().filter(|arch| arch.images == [1, 28, 28]) {
        let network = network(arch);
        for method in METHODS {
            let mut recipe = Recipe { iterations: 10, act_search_images: 64, ..(method.recipe)(arch) };
            recipe.correction_iterations = recipe.correction_iterations.min(10);
            let bits = (Bits { w: 4, a: 4 }, Setting::Brecq);
            let (model, traces) = quantized(&network, &calib.images, bits, &recipe);
            assert_eq!(traces.is_empty(), recipe.granularity == Granularity::None, "{}", method.name);
            let judged = traces.iter().any(|trace| trace.phase == "weights" && !trace.prediction.is_empty());
            let corrected = traces.iter().any(|trace| trace.phase == "correction");
            assert_eq!((judged, corrected), (method.name == "pd-quant", method.name == "pd-quant"), "{}", method.name);
            let top1 = accuracy(&model, &test);
            assert!(top1 > 0.85, "{} with {}: {top1}", arch.name, method.name);
        }
    }
}

#[test]
fn activations_in_a_file_train_every_method_as_those_in_memory() {
    let images = test_split(80).images;
    let arch = ptq::arch::find("resnet20").unwrap();
    let network = network(arch);
    let folder = tempfile::tempdir().unwrap();
    let losses = |memory: &Memory, recipe: &Recipe| {
        let bits = (Bits { w: 2, a: 2 }, Setting::Qdrop);
        let (_, traces) = quantized_within(memory, &network, &images, bits, recipe);
        traces.into_iter().map(|trace| (trace.unit, trace.phase, trace.loss, trace.prediction)).collect::<Vec<_>>()
    };
    for method in METHODS.iter().filter(|method| method.name != "rtn") {
        let mut recipe = Recipe { iterations: 2, loss: Loss::Fisher, ..(method.recipe)(arch) };
        if recipe.granularity == Granularity::Layer || recipe.loss_exponent != 2.0 {
            recipe.loss = Loss::Error;
        }
        recipe.correction_iterations = recipe.correction_iterations.min(2);
        let in_memory = losses(&Memory::unlimited(), &recipe);
        assert!(in_memory.len() >= 9, "{}", method.name);
        // Nothing fits; or the smaller units do.
        for limit in [0, 6_000_000] {
            assert_eq!(losses(&Memory::new(limit, folder.path()), &recipe), in_memory, "{}", method.name);
        }
    }
}

#[test]
fn reconstruction_repairs_two_bits() {
    let calib = data::find("fashion-mnist")
        .unwrap()
        .load(&Request::default(), &Device::Cpu)
        .unwrap()
        .calibration(128, 0)
        .unwrap();
    let test = test_split(1000);
    let arch = ptq::arch::find("resnet20").unwrap();
    let network = network(arch);
    let top1 = |recipe: &Recipe| {
        let bits = (Bits { w: 2, a: 2 }, Setting::Qdrop);
        accuracy(&quantized(&network, &calib.images, bits, recipe).0, &test)
    };
    let genie = Recipe { iterations: 100, ..(ptq::methods::find("genie-m").unwrap().recipe)(arch) };
    let start = top1(&Recipe { granularity: Granularity::None, ..genie.clone() });
    let trained = top1(&genie);
    assert!(start < 0.4 && trained > start + 0.3, "{start} -> {trained}");
    // BRECQ's Fisher weights: another loss, about the same quality.
    let fisher = top1(&Recipe { loss: Loss::Fisher, ..genie });
    assert!(fisher != trained && fisher > start + 0.3, "{start} -> {fisher}");
}

#[test]
fn thirty_two_bits_change_nothing() {
    let calib = data::find("fashion-mnist")
        .unwrap()
        .load(&Request::default(), &Device::Cpu)
        .unwrap()
        .calibration(32, 0)
        .unwrap();
    let test = test_split(250);
    let arch = ptq::arch::find("mobilenetv2-tiny").unwrap();
    let recipe = Recipe { iterations: 2, ..(ptq::methods::find("qdrop").unwrap().recipe)(arch) };
    let network = network(arch);
    let bits = (Bits { w: Bits::FULL, a: Bits::FULL }, Setting::Qdrop);
    let (model, traces) = quantized(&network, &calib.images, bits, &recipe);
    assert!(traces.is_empty());
    let folded = fold_bn(&network, recipe.batch_norm).unwrap();
    let full = folded.units.iter().fold(test.images.clone(), |x, unit| {
        ptq::graph::forward::forward(unit, &x, &ptq::graph::forward::FullPrecision).unwrap()
    });
    let quantized = model.units.iter().fold(test.images.clone(), |x, unit| unit.forward(&x, Mode::HARD).unwrap());
    assert_eq!(full.to_vec2::<f32>().unwrap(), quantized.to_vec2::<f32>().unwrap());
}

#[test]
fn the_identity_transform_is_genie_m_on_duplicated_images() {
    let calib = data::find("fashion-mnist")
        .unwrap()
        .load(&Request::default(), &Device::Cpu)
        .unwrap()
        .calibration(32, 0)
        .unwrap();
    let arch = ptq::arch::find("resnet20").unwrap();
    let recipe = |method: &str, batch: usize| Recipe {
        iterations: 6,
        batch,
        ..(ptq::methods::find(method).unwrap().recipe)(arch)
    };
    let bits = (Bits { w: 2, a: 2 }, Setting::Qdrop);
    let network = network(arch);
    let twice = Tensor::cat(&[&calib.images, &calib.images], 0).unwrap();
    let (plain, _) = quantized(&network, &twice, bits, &recipe("metaaug", 16));

    let identity = NETS.iter().find(|net| net.name == "identity").map(NetName).unwrap();
    let config = Transform { net: identity, ..Transform::published() };
    let net = TransformNet::new(&config, 1, Stream::new(0), DType::F32, &Device::Cpu).unwrap();
    // Stem and classifier see the copies too, as they do above.
    let meta = Meta { skip_ends: false, ..Meta::published(arch) };
    let transform = Trainable { net: &net, meta: &meta, terms: &Terms::published() };
    let added = Added { transform: Some(transform), labels: &calib.labels, ..Added::default() };
    let memory = Memory::unlimited();
    let joined = Calibration { images: &calib.images, memory: &memory, trained: &network, added };
    let recipe = recipe("metaaug", 8);
    let folded = fold_bn(&network, recipe.batch_norm).unwrap();
    let model = quantize(&folded, &joined, bits, &recipe, 0, &CONTROL).unwrap();
    let logits = |model: &QuantModel| {
        let y = model.units.iter().fold(calib.images.clone(), |x, unit| unit.forward(&x, Mode::HARD).unwrap());
        y.to_vec2::<f32>().unwrap()
    };
    assert_eq!(logits(&plain), logits(&model));
}

#[test]
fn a_trained_transform_leaves_its_losses_and_does_not_depend_on_threads_or_time() {
    let calib = data::find("fashion-mnist")
        .unwrap()
        .load(&Request::default(), &Device::Cpu)
        .unwrap()
        .calibration(32, 0)
        .unwrap();
    let arch = ptq::arch::find("resnet20").unwrap();
    let recipe = Recipe { iterations: 4, ..(ptq::methods::find("metaaug").unwrap().recipe)(arch) };
    let network = network(arch);
    let folded = fold_bn(&network, recipe.batch_norm).unwrap();
    let config = Transform { base: 2, depth: 1, warmup_iterations: 5, ..Transform::published() };
    let meta = Meta { iterations: 2, batch: 8, outer_batch: 8, lr: 1e-3, ..Meta::published(arch) };
    let run = || {
        let net = warmed_up(&config, &calib.images, Stream::new(0), &CONTROL).unwrap();
        let before = net.parameters.tensors().unwrap();
        let transform = Trainable { net: &net, meta: &meta, terms: &Terms::published() };
        let added = Added { transform: Some(transform), labels: &calib.labels, ..Added::default() };
        let (memory, traces) = (Memory::unlimited(), Traces::default());
        let control = Control { observe: &|event| traces.note(&event), cancelled: &RUNNING };
        let joined = Calibration { images: &calib.images, memory: &memory, trained: &network, added };
        let bits = (Bits { w: 2, a: 2 }, Setting::Qdrop);
        quantize(&folded, &joined, bits, &recipe, 0, &control).unwrap();
        let after = net.parameters.tensors().unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(before.iter().any(|(name, tensor)| values(tensor) != values(&after[name])));
        let traces = traces.finish().into_iter().map(|trace| (trace.unit, trace.phase, trace.loss, trace.terms));
        traces.collect::<Vec<_>>()
    };
    let traces = run();
    let of_meta: Vec<_> = traces.iter().filter(|(_, phase, ..)| phase == "meta").collect();
    // One per block: stem and classifier see the original images only.
    assert_eq!(of_meta.len(), 9);
    for (unit, _, loss, terms) in of_meta {
        assert_eq!((loss.len(), terms.len()), (2, 3), "{unit}");
        assert!(terms.iter().all(|term| term.gradient_norm.iter().all(|norm| norm.is_finite() && *norm >= 0.0)));
    }
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(run), traces, "{threads} threads");
    }
}
