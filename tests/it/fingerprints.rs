//! The bits of results: SHA-256 of the losses and logits of tiny cells, pinned for every kind of vector instructions.
//!
//! What changes them changes results, so that stored runs are of another revision: the failure says of what. The pins and the
//! command that makes them are in `fingerprints.toml`.

use crate::end_to_end::{CONTROL, network};
use candle_core::{Device, Tensor};
use metaaug::data::{self, Request, Split};
use metaaug::disk::sha256;
use metaaug::store::processor;
use ptq::arch::layout::TORCHVISION;
use ptq::arch::{self, ArchSpec, made_up};
use ptq::augment::{Augmentation, Normalisation};
use ptq::graph::Network;
use ptq::graph::fold_bn::fold_bn;
use ptq::graph::forward::through;
use ptq::meta::config::Meta;
use ptq::meta::nets::Transform;
use ptq::meta::terms::Terms;
use ptq::meta::train::Trainable;
use ptq::meta::warm_up::warmed_up;
use ptq::methods::{self, METHODS, Method};
use ptq::quant::model::Mode;
use ptq::quantize::added::Added;
use ptq::quantize::{Calibration, quantize};
use ptq::recipe::{Bits, RangeSearch, Recipe, Setting};
use ptq::recon::activations::Memory;
use ptq::recon::event::Control;
use ptq::recon::trace::{Traces, UnitTrace};
use ptq::rng::Stream;
use std::collections::{BTreeMap, BTreeSet};

const PINS: &str = include_str!("fingerprints.toml");
/// Cells beside one per method.
const IMAGES: &str = "images";
const FULL_PRECISION: &str = "full-precision";
const TRANSFORMED: &str = "qdrop-transformed";
const AUGMENTED: &str = "qdrop-augmented";
const LARGE: &str = "large-images";

/// What a cell is quantized on beside its images.
#[derive(Default)]
struct Beside {
    transforms: bool,
    augment: Vec<Augmentation>,
}

/// The bytes of a tensor of f32.
fn bytes(tensor: &Tensor) -> Vec<u8> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The bytes of what was traced, but for times.
fn bytes_of_traces(traces: &[UnitTrace]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for trace in traces {
        bytes.extend(format!("{} {}\n", trace.unit, trace.phase).bytes());
        let of_terms = trace.terms.iter().flat_map(|term| [&term.loss, &term.gradient_norm]);
        for values in [&trace.loss, &trace.regulariser, &trace.prediction].into_iter().chain(of_terms) {
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
    bytes
}

/// Of `trained`, quantized by `recipe` on `calib`: the losses on the way, and the logits of the same images.
fn fingerprint(trained: &Network, arch: &ArchSpec, calib: &Split, recipe: &Recipe, beside: &Beside) -> String {
    let (images, memory, traces) = (&calib.images, Memory::unlimited(), Traces::default());
    let config = Transform { base: 2, depth: 1, warmup_iterations: 3, ..Transform::published() };
    let net = beside.transforms.then(|| warmed_up(&config, images, Stream::new(0), &CONTROL).unwrap());
    let meta = Meta { iterations: 2, batch: 8, outer_batch: 8, lr: 1e-3, ..Meta::published(arch) };
    let terms = Terms::published();
    let normalisation = Normalisation { mean: vec![0.5], std: vec![0.25] };
    let added = Added {
        augment: &beside.augment,
        normalisation: Some(&normalisation),
        transform: net.as_ref().map(|net| Trainable { net, meta: &meta, terms: &terms }),
        labels: &calib.labels,
    };
    let network = fold_bn(trained, recipe.batch_norm).unwrap();
    let on = Calibration { images, memory: &memory, trained, added };
    let bits = (Bits { w: 2, a: 4 }, Setting::Qdrop);
    let control = Control { observe: &|event| traces.note(&event), ..CONTROL };
    let model = quantize(&network, &on, bits, recipe, 0, &control).unwrap();
    sha256(&[&bytes_of_traces(&traces.finish()), &bytes(&model.logits(images, Mode::HARD).unwrap())])
}

/// The published recipe with few iterations.
fn short(method: &Method, arch: &ArchSpec) -> Recipe {
    let recipe = (method.recipe)(arch);
    Recipe {
        iterations: 3,
        batch: 8,
        act_search_images: 16,
        correction_iterations: recipe.correction_iterations.min(3),
        ..recipe
    }
}

/// All fingerprints by name.
fn computed() -> BTreeMap<String, String> {
    let arch = arch::find("resnet20").unwrap();
    let data = data::find("fashion-mnist").unwrap().load(&Request::default(), &Device::Cpu).unwrap();
    let (calib, trained) = (data.calibration(16, 0).unwrap(), network(arch));
    let of = |recipe: &Recipe, beside: Beside| fingerprint(&trained, arch, &calib, recipe, &beside);
    let logits = through(trained.units.iter(), &calib.images).unwrap();
    let qdrop = methods::find("qdrop").unwrap();
    let augment = vec![
        Augmentation::Flip,
        Augmentation::Mixup,
        Augmentation::Cutmix,
        Augmentation::Rotation,
        Augmentation::Brightness,
        Augmentation::Contrast,
    ];
    let mut found = BTreeMap::from([
        (IMAGES.to_string(), sha256(&[&bytes(&calib.images)])),
        (FULL_PRECISION.to_string(), sha256(&[&bytes(&logits)])),
        (TRANSFORMED.to_string(), of(&short(qdrop, arch), Beside { transforms: true, ..Beside::default() })),
        (AUGMENTED.to_string(), of(&short(qdrop, arch), Beside { augment, ..Beside::default() })),
        (LARGE.to_string(), of_large_images(qdrop)),
    ]);
    for method in METHODS {
        let beside = Beside { transforms: method.transforms, ..Beside::default() };
        found.insert(method.name.to_string(), of(&short(method, arch), beside));
    }
    found
}

/// Of ResNet-18, whose last stages have many channels of few pixels: `ops::conv::gathered` computes them, and where a batch has
/// more than 8 images, several in one product.
fn of_large_images(method: &Method) -> String {
    const SIZE: usize = 112;
    let arch = arch::find("resnet18").unwrap();
    let trained = arch::load(arch, made_up::tensors(arch, &TORCHVISION).unwrap(), "made up", &Device::Cpu).unwrap();
    let pixels: Vec<f32> = made_up::noise("images", 10 * 3 * SIZE * SIZE).map(|pixel| pixel as f32).collect();
    let images = Tensor::from_vec(pixels, (10, 3, SIZE, SIZE), &Device::Cpu).unwrap();
    let calib = Split { images, labels: vec![0; 10], sha256: String::new() };
    let recipe = Recipe {
        iterations: 1,
        batch: 10,
        weight_search: RangeSearch::MinMax,
        act_search: RangeSearch::MinMax,
        ..short(method, arch)
    };
    fingerprint(&trained, arch, &calib, &recipe, &Beside::default())
}

/// Which revision is to be raised where the fingerprints of these names, and no others, have changed.
fn advice(changed: &BTreeSet<&str>) -> String {
    let module = |name: &str| format!("the revision of {name} in crates/ptq/src/revisions.rs");
    let is = |name: &str| changed.contains(name);
    let trained = || METHODS.iter().filter(|method| method.name != "rtn");
    let of_methods: Vec<&str> = METHODS.iter().map(|method| method.name).filter(|name| is(name)).collect();
    let all_trained = trained().all(|method| is(method.name));
    if is(IMAGES) {
        "the revision of data in src/data/mod.rs".to_string()
    } else if is(FULL_PRECISION) || (is(LARGE) && of_methods.is_empty()) {
        module("ops")
    } else if is("rtn") && all_trained {
        format!("{}, or of ops if the change is there", module("quant"))
    } else if all_trained {
        format!("{}, or of ops or quant if the change is there", module("recon"))
    } else if is(TRANSFORMED) && trained().all(|method| method.transforms || !is(method.name)) {
        format!("{}, or of ops if the change is there", module("meta"))
    } else if is(AUGMENTED) && of_methods.is_empty() {
        module("augment")
    } else {
        format!("in crates/ptq/src/methods/mod.rs the revision of {}", of_methods.join(", "))
    }
}

/// The table of `fingerprints.toml` for these instructions.
fn table(instructions: &str, found: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = found.iter().map(|(name, sha256)| format!("{name} = \"{sha256}\"")).collect();
    format!("[\"{instructions}\"]\n{}\n", lines.join("\n"))
}

#[test]
fn results_have_the_bits_of_their_revisions() {
    let pins: BTreeMap<String, BTreeMap<String, String>> = toml::from_str(PINS).unwrap();
    let instructions = processor::instructions();
    let found = computed();
    let new = table(instructions, &found);
    let Some(pinned) = pins.get(instructions) else {
        println!(
            "skipped: no fingerprints are pinned for {instructions}; to pin them, add to tests/it/fingerprints.toml:\n{new}"
        );
        return;
    };
    let names: BTreeSet<&str> = found.keys().chain(pinned.keys()).map(String::as_str).collect();
    let (known, unknown): (BTreeSet<&str>, BTreeSet<&str>) =
        names.iter().partition(|name| found.contains_key(**name) && pinned.contains_key(**name));
    assert!(
        unknown.is_empty(),
        "{unknown:?} have no pin, or no cell any more; the table of tests/it/fingerprints.toml is to be\n{new}"
    );
    let changed: BTreeSet<&str> = known.into_iter().filter(|name| found[*name] != pinned[*name]).collect();
    assert!(
        changed.is_empty(),
        "the bits of {changed:?} have changed with {instructions}: results stored by this revision would be mixed with \
         others. If that is meant, raise {}, remove the tables of other instructions from tests/it/fingerprints.toml, and \
         put this into it:\n{new}",
        advice(&changed)
    );
}

#[test]
fn what_has_changed_says_which_revision_to_raise() {
    let trained = || METHODS.iter().map(|method| method.name).filter(|name| *name != "rtn");
    let raise = |names: &[&str]| advice(&names.iter().copied().collect());
    let every_method: Vec<&str> = trained().chain(["rtn", TRANSFORMED, AUGMENTED, LARGE]).collect();
    let every_cell: Vec<&str> = every_method.iter().copied().chain([FULL_PRECISION]).collect();
    let reconstructed: Vec<&str> = trained().chain([TRANSFORMED, AUGMENTED, LARGE]).collect();
    for (changed, part) in [
        (&[IMAGES, "rtn"][..], "of data in"),
        (&every_cell, "of ops in"),
        (&[LARGE], "of ops in"),
        (&every_method, "of quant in"),
        (&reconstructed, "of recon in"),
        (&["metaaug", TRANSFORMED], "of meta in"),
        (&[TRANSFORMED], "of meta in"),
        (&[AUGMENTED], "of augment in"),
        (&["qdrop", TRANSFORMED, AUGMENTED, LARGE], "the revision of qdrop"),
        (&["rtn"], "the revision of rtn"),
    ] {
        assert!(raise(changed).contains(part), "{changed:?}: {}", raise(changed));
    }
}
