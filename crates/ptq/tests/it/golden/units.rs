//! Whole networks of several units, with the mini-batches and masks of `rng`, against the published code
//! (`scripts/make_units_golden.py`): where units begin and end, in which order they see what, where quantizers sit.

use super::reconstruction::assert_trained;
use super::{Golden, assert_close, values};
use candle_core::{DType, Device, Tensor};
use ptq::graph::fold_bn::fold_bn;
use ptq::graph::{BatchNorm, Conv, Linear, Network, Node, Op, Role, Source, Unit};
use ptq::meta::config::Meta;
use ptq::meta::nets::{NETS, TransformNet};
use ptq::meta::nets::{NetName, Transform};
use ptq::meta::terms::Terms;
use ptq::meta::train::Trainable;
use ptq::ops::conv::{Geometry, Padding};
use ptq::quant::model::{Mode, QuantModel, QuantUnit};
use ptq::quantize::added::Added;
use ptq::quantize::{Calibration, quantize};
use ptq::recipe::{Bits, Setting};
use ptq::recipe::{ClassifierMix, ConvTarget, Granularity, Placement, Recipe};
use ptq::recon::activations::Memory;
use ptq::recon::event::Control;
use ptq::recon::start::{prepare, search_ranges};
use ptq::rng::Stream;
use ptq::{arch, methods};
use std::sync::atomic::AtomicBool;

static RUNNING: AtomicBool = AtomicBool::new(false);
static CONTROL: Control = Control { observe: &|_| (), cancelled: &RUNNING };

const STEPS: usize = 12;
const BITS: Bits = Bits { w: 2, a: 2 };

/// Lists the nodes of a unit, whose tensors are `<prefix><name>...`.
struct Builder<'a> {
    golden: &'a Golden,
    prefix: &'static str,
    nodes: Vec<Node>,
}

impl<'a> Builder<'a> {
    fn new(golden: &'a Golden, prefix: &'static str) -> Self {
        Self { golden, prefix, nodes: Vec::new() }
    }

    fn push(&mut self, name: &str, op: Op, inputs: &[Source]) -> Source {
        self.nodes.push(Node { name: name.to_string(), op, inputs: inputs.to_vec() });
        Source::Node(self.nodes.len() - 1)
    }

    fn tensor(&self, name: String) -> Tensor {
        self.golden.tensor(&format!("{}{name}", self.prefix))
    }

    /// Convolution `conv` with BatchNorm `norm`; its padding keeps the size, but for the stride.
    fn conv(&mut self, (conv, norm): (&str, &str), x: Source, stride: usize, groups: usize) -> Source {
        let weight = self.tensor(format!("{conv}.weight"));
        let geometry = Geometry { stride, padding: Padding::Each(weight.dim(2).unwrap() / 2), groups };
        let x = self.push(conv, Op::Conv(Conv { weight, bias: None, gain: None, geometry }), &[x]);
        let get = |suffix: &str| self.tensor(format!("{norm}.{suffix}"));
        let (weight, bias) = (get("weight"), get("bias"));
        let batch_norm = BatchNorm { weight, bias, mean: get("running_mean"), var: get("running_var"), eps: 1e-5 };
        self.push(norm, Op::BatchNorm(batch_norm), &[x])
    }

    /// The same with an activation function.
    fn layer(&mut self, names: (&str, &str), x: Source, stride: usize, groups: usize, relu: Op) -> Source {
        let x = self.conv(names, x, stride, groups);
        self.push(&format!("{}.relu", names.0), relu, &[x])
    }

    fn unit(self, name: &str, role: Role) -> Unit {
        Unit { name: name.to_string(), role, nodes: self.nodes }
    }
}

/// A single convolution with BatchNorm and activation function.
fn lone(
    golden: &Golden,
    prefix: &'static str,
    (unit, conv, norm): (&str, &str, &str),
    role: Role,
    (stride, relu): (usize, Op),
) -> Unit {
    let mut builder = Builder::new(golden, prefix);
    builder.layer((conv, norm), Source::Input, stride, 1, relu);
    builder.unit(unit, role)
}

/// An inverted residual of 16 hidden channels whose layers are called `<name>.<part>.0` to `.7`.
fn inverted_residual(
    golden: &Golden,
    prefix: &'static str,
    (name, part): (&str, &str),
    stride: usize,
    adds: bool,
    relu: &Op,
) -> Unit {
    let mut builder = Builder::new(golden, prefix);
    let named = |index: usize| format!("{name}.{part}.{index}");
    let x = builder.layer((&named(0), &named(1)), Source::Input, 1, 1, relu.clone());
    let x = builder.layer((&named(3), &named(4)), x, stride, 16, relu.clone());
    let x = builder.conv((&named(6), &named(7)), x, 1, 1);
    if adds {
        builder.push("add", Op::Add, &[x, Source::Input]);
    }
    builder.unit(name, Role::Block)
}

fn classifier(golden: &Golden, prefix: &'static str, (unit, layer): (&str, &str)) -> Unit {
    let mut builder = Builder::new(golden, prefix);
    let x = builder.push("avgpool", Op::GlobalAvgPool, &[Source::Input]);
    let x = builder.push("flatten", Op::Flatten, &[x]);
    let (weight, bias) = (builder.tensor(format!("{layer}.weight")), builder.tensor(format!("{layer}.bias")));
    builder.push(layer, Op::Linear(Linear { weight, bias: Some(bias) }), &[x]);
    builder.unit(unit, Role::Classifier)
}

/// The network of the first two files.
fn mobile(golden: &Golden) -> Network {
    let units = vec![
        lone(golden, "fp.", ("stem", "stem.0", "stem.1"), Role::Stem, (1, Op::Relu6)),
        inverted_residual(golden, "fp.", ("block1", "conv"), 2, false, &Op::Relu6),
        inverted_residual(golden, "fp.", ("block2", "conv"), 1, true, &Op::Relu6),
        lone(golden, "fp.", ("last", "last.0", "last.1"), Role::Block, (1, Op::Relu6)),
        classifier(golden, "fp.", ("classifier", "fc")),
    ];
    Network { arch: "test", units }
}

/// The published recipe, shortened.
fn recipe(method: &str, arch: &str) -> Recipe {
    let published = (methods::find(method).unwrap().recipe)(arch::find(arch).unwrap());
    Recipe { iterations: STEPS, batch: 8, act_phase_frac: published.act_phase_frac.ceil(), ..published }
}

fn logits(model: &QuantModel, images: &Tensor) -> Vec<f32> {
    values(&model.units.iter().fold(images.clone(), |x, unit| unit.forward(&x, Mode::HARD).unwrap()))
}

/// Name, node and activation quantizer at the input of every layer of `unit`.
fn layers(unit: &QuantUnit) -> impl Iterator<Item = (&str, usize)> {
    let nodes = unit.fp.nodes.iter().enumerate();
    nodes.filter(|(_, node)| node.op.weight().is_some()).map(|(index, node)| (node.name.as_str(), index))
}

fn input_scale(unit: &QuantUnit, node: usize) -> Option<Vec<f32>> {
    unit.placement.on_input[node][0].map(|site| values(&unit.acts[site].scale))
}

/// All quantizers of a network of Genie's kind at `moment`, and its logits.
#[track_caller]
fn compare(golden: &Golden, model: &QuantModel) {
    for unit in &model.units {
        for (layer, node) in layers(unit) {
            let expected = |what: &str| golden.values(&format!("end.{layer}.{what}"));
            let weight = unit.weights[node].as_ref().unwrap();
            assert_trained(layer, &values(&weight.scale), &expected("scale"), 1e-4, STEPS, 2e-6);
            assert_trained(layer, &values(&weight.learned[0]), &expected("bit_logit"), 1e-3, STEPS, 2e-5);
            if let Some(scale) = input_scale(unit, node) {
                assert_trained(layer, &scale, &expected("act"), 4e-5, STEPS, 2e-6);
            }
        }
    }
    assert_close("logits", &logits(model, &golden.tensor("images")), &golden.values("logits"), 1e-4);
}

#[test]
fn genie_over_all_units() {
    let golden = Golden::open("units_genie");
    let (images, trained, memory) = (golden.tensor("images"), mobile(&golden), Memory::unlimited());
    let quantized = |recipe: &Recipe| {
        let network = fold_bn(&trained, recipe.batch_norm).unwrap();
        let calib = Calibration { images: &images, memory: &memory, trained: &trained, added: Added::default() };
        quantize(&network, &calib, (BITS, Setting::Brecq), recipe, 0, &CONTROL).unwrap()
    };
    let recipe = recipe("genie-m", "mobilenetv2-tiny");
    compare(&golden, &quantized(&recipe));
    // What the golden values tell apart: so much of the rounding of one layer comes out otherwise.
    let off = |model: &QuantModel, unit: usize, node: usize, layer: &str| {
        let ours = values(&model.units[unit].weights[node].as_ref().unwrap().learned[0]);
        let theirs = golden.values(&format!("end.{layer}.bit_logit"));
        let apart = ours.iter().zip(theirs).filter(|(ours, theirs)| (*ours - theirs).abs() > 2e-5).count();
        apart as f64 / ours.len() as f64
    };
    let activation = quantized(&Recipe { conv_target: ConvTarget::Activation, ..recipe.clone() });
    assert!(off(&activation, 0, 0, "stem.0") > 0.2 && off(&activation, 3, 0, "last.0") > 0.2);
    let maps = quantized(&Recipe { classifier_mix: ClassifierMix::Maps, ..recipe });
    assert!(off(&maps, 3, 0, "last.0") < 0.02 && off(&maps, 4, 2, "fc") > 0.2);
}

#[test]
fn metaaug_over_all_units() {
    let golden = Golden::open("units_metaaug");
    let (images, trained, memory) = (golden.tensor("images"), mobile(&golden), Memory::unlimited());
    let recipe = recipe("metaaug", "regnetx-600m");
    let network = fold_bn(&trained, recipe.batch_norm).unwrap();
    let placed = (BITS, Setting::Qdrop);
    // Where the virtual updates start from.
    let mut start = prepare(&network, &images, placed, &recipe).unwrap();
    search_ranges(&mut start, &images, &recipe).unwrap();
    for unit in &start.units {
        for (layer, node) in layers(unit) {
            if let Some(scale) = input_scale(unit, node) {
                assert_close(layer, &scale, &golden.values(&format!("start.{layer}.act")), 1e-6);
            }
        }
    }
    let identity = NETS.iter().find(|net| net.name == "identity").map(NetName).unwrap();
    let config = Transform { net: identity, ..Transform::published() };
    let net = TransformNet::new(&config, 3, Stream::new(0), DType::F32, &Device::Cpu).unwrap();
    // The stem of the golden network goes by a name that the published list of what to skip does not know.
    let meta = Meta::published(arch::find("regnetx-600m").unwrap());
    let transform = Trainable { net: &net, meta: &meta, terms: &Terms::published() };
    let added = Added { transform: Some(transform), labels: &[0; 32], ..Added::default() };
    let calib = Calibration { images: &images, memory: &memory, trained: &trained, added };
    compare(&golden, &quantize(&network, &calib, placed, &recipe, 0, &CONTROL).unwrap());
}

/// A bottleneck of 12 channels in 3 groups, in BRECQ's names.
fn bottleneck(golden: &Golden, name: &str, changes_shape: bool) -> Unit {
    let mut builder = Builder::new(golden, "regnet.fp.");
    let named = |layer: &str| (format!("{name}.f.{layer}"), format!("{name}.f.{layer}_bn"));
    let [a, b, c] = ["a", "b", "c"].map(named);
    let stride = if changes_shape { 2 } else { 1 };
    let x = builder.layer((&a.0, &a.1), Source::Input, 1, 1, Op::Relu);
    let x = builder.layer((&b.0, &b.1), x, stride, 3, Op::Relu);
    let x = builder.conv((&c.0, &c.1), x, 1, 1);
    let shortcut = match changes_shape {
        true => builder.conv((&format!("{name}.proj"), &format!("{name}.bn")), Source::Input, 2, 1),
        false => Source::Input,
    };
    let sum = builder.push("add", Op::Add, &[x, shortcut]);
    builder.push("relu", Op::Relu, &[sum]);
    builder.unit(name, Role::Block)
}

/// Compares what BRECQ makes of `units`; `published` gives its name of a quantized layer or block output.
fn brecq(family: &'static str, arch: &str, units: Vec<Unit>, published: impl Fn(&str) -> String) {
    let golden = Golden::open("units_brecq");
    let recipe = recipe("brecq", arch);
    let (images, trained, memory) = (golden.tensor("images"), Network { arch: "test", units }, Memory::unlimited());
    let network = fold_bn(&trained, recipe.batch_norm).unwrap();
    let calib = Calibration { images: &images, memory: &memory, trained: &trained, added: Added::default() };
    let model = quantize(&network, &calib, (BITS, Setting::Brecq), &recipe, 0, &CONTROL).unwrap();
    let mut acts = 0;
    for unit in &model.units {
        for (layer, node) in layers(unit) {
            let name = published(layer);
            let weight = unit.weights[node].as_ref().unwrap();
            assert_close(&name, &values(&weight.scale), &golden.values(&format!("{family}.{name}.scale")), 1e-6);
            if let Some(alpha) = golden.find(&format!("{family}.{name}.alpha")) {
                assert_trained(&name, &values(&weight.learned[0]), &values(&alpha), 1e-3, STEPS, 2e-5);
            }
        }
        for (node, site) in unit.placement.on_output.iter().enumerate() {
            let Some(site) = *site else { continue };
            let tensor = unit.fp.nodes[node].name.as_str();
            let name = match tensor {
                "relu" | "add" => unit.fp.name.clone(),
                layer => published(layer.strip_suffix(".relu").unwrap_or(layer)),
            };
            let act = &unit.acts[site];
            let bits = golden.scalar(&format!("{family}.{name}.act_bits"));
            assert_eq!(f64::from(act.bits), bits, "{name}");
            let expected = golden.values(&format!("{family}.{name}.act"));
            assert_trained(&name, &values(&act.scale), &expected, 4e-4, STEPS, 5e-6);
            acts += 1;
        }
    }
    let all = golden.with_prefix(&format!("{family}."));
    assert_eq!(acts, all.keys().filter(|name| name.ends_with(".act")).count());
    assert_close("logits", &logits(&model, &images), &golden.values(&format!("{family}.logits")), 1e-4);
}

#[test]
fn brecq_takes_mnasnet_for_a_list_of_layers() {
    let golden = Golden::open("units_brecq");
    let prefix = "mnasnet.fp.";
    let units = vec![
        lone(&golden, prefix, ("layers.0", "layers.0", "layers.1"), Role::Stem, (1, Op::Relu)),
        inverted_residual(&golden, prefix, ("layers.3.0", "layers"), 1, true, &Op::Relu),
        inverted_residual(&golden, prefix, ("layers.3.1", "layers"), 2, false, &Op::Relu),
        lone(&golden, prefix, ("layers.4", "layers.4", "layers.5"), Role::Block, (1, Op::Relu)),
        classifier(&golden, prefix, ("classifier.1", "classifier.1")),
    ];
    let published = recipe("brecq", "mnasnet1-0");
    assert_eq!((published.granularity, published.placement), (Granularity::Layer, Placement::LayerOutputs));
    brecq("mnasnet", "mnasnet1-0", units, str::to_string);
}

#[test]
fn brecq_leaves_the_input_of_regnets_classifier_at_the_width_of_activations() {
    let golden = Golden::open("units_brecq");
    let units = vec![
        lone(&golden, "regnet.fp.", ("stem", "stem.conv", "stem.bn"), Role::Stem, (2, Op::Relu)),
        bottleneck(&golden, "s1.b1", true),
        bottleneck(&golden, "s1.b2", false),
        classifier(&golden, "regnet.fp.", ("head.fc", "head.fc")),
    ];
    brecq("regnet", "regnetx-600m", units, |layer| {
        let mut name = layer.to_string();
        for (ours, theirs) in [("f.a", "conv1"), ("f.b", "conv2"), ("f.c", "conv3"), ("proj", "downsample")] {
            name = name.replace(ours, theirs);
        }
        name
    });
}
