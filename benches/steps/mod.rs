//! Steps of the computation, set up for the benchmarks.

#![allow(dead_code, reason = "each benchmark uses its part")]

pub mod device_memory;

use candle_core::{Device, Tensor};
use metaaug::assets::checkpoint::load_weights;
use metaaug::assets::source::{EMBEDDED, MADE_UP};
use metaaug::data;
use metaaug::experiment::{Cell, Experiment, Options};
use metaaug::hub::Hub;
use ptq::arch::{self, ArchSpec};
use ptq::graph::Network;
use ptq::graph::fold_bn::fold_bn;
use ptq::graph::forward::through;
use ptq::methods;
use ptq::quant::model::{Mode, QuantModel};
use ptq::recipe::{Bits, Setting};
use ptq::recipe::{RangeSearch, Recipe};
use ptq::recon::activations::{Activations, Memory};
use ptq::recon::event::Control;
use ptq::recon::midway::Loops;
use ptq::recon::train::{Phase, Problem, train};
use ptq::rng::Stream;
use std::sync::atomic::AtomicBool;

static CANCELLED: AtomicBool = AtomicBool::new(false);
pub const CONTROL: Control = Control { observe: &|_| (), cancelled: &CANCELLED };

pub fn spec(name: &str) -> &'static ArchSpec {
    arch::find(name).unwrap_or_else(|| panic!("no architecture {name}"))
}

/// On `device`, where everything that is made for the network will be too.
pub fn load(name: &str, device: &Device) -> Network {
    let spec = spec(name);
    let weights = |from, dataset| load_weights(from, spec, dataset, device, &Hub::silent());
    let checkpoint = weights(EMBEDDED, "fashion-mnist").or_else(|_| weights(MADE_UP, "imagenet")).unwrap();
    arch::load(spec, checkpoint.tensors, &checkpoint.source, device).unwrap()
}

/// Images that the network takes: of the embedded data set, or random ones of 224 x 224.
pub fn images(network: &Network, n: usize) -> Tensor {
    let device = device(network);
    if channels(network) == 3 {
        return Tensor::randn(0f32, 1.0, (n, 3, 224, 224), device).unwrap();
    }
    let data = data::find("fashion-mnist").unwrap().load(&data::Request::default(), device).unwrap();
    data.calibration(n, 0).unwrap().images
}

/// Of its images.
fn channels(network: &Network) -> usize {
    first_weight(network).dim(1).unwrap()
}

/// Where its weights are.
pub fn device(network: &Network) -> &Device {
    first_weight(network).device()
}

fn first_weight(network: &Network) -> &Tensor {
    network.units[0].nodes[0].op.weight().unwrap()
}

pub fn recipe(network: &Network, method: &str) -> Recipe {
    (methods::find(method).unwrap().recipe)(spec(network.arch))
}

/// The network at W2A2; its ranges are the whole ones of its weights and of a few of `images`: no time depends on them, and
/// the recipe's searches would take longer than what is timed.
pub fn quantized(network: &Network, recipe: &Recipe, images: &Tensor) -> QuantModel {
    let folded = fold_bn(network, recipe.batch_norm).unwrap();
    let recipe = Recipe { weight_search: RangeSearch::MinMax, ..recipe.clone() };
    let mut model = QuantModel::new(&folded, Bits { w: 2, a: 2 }, Setting::Qdrop, &recipe).unwrap();
    let few = images.narrow(0, 0, images.dim(0).unwrap().min(4)).unwrap();
    model.search_acts(&few, RangeSearch::MinMax, Mode::HARD).unwrap();
    model
}

pub fn position(model: &QuantModel, unit: &str) -> usize {
    model.units.iter().position(|other| other.fp.name == unit).unwrap_or_else(|| panic!("no unit {unit}"))
}

pub fn prefix(model: &QuantModel, index: usize, images: &Tensor) -> Tensor {
    model.units[..index].iter().fold(images.clone(), |x, unit| unit.forward(&x, Mode::HARD).unwrap())
}

/// QDrop's reconstruction of one unit at W2A2 on 128 images, or 64 large ones, the regulariser on.
pub struct QdropSteps {
    model: QuantModel,
    index: usize,
    recipe: Recipe,
    x_fp: Activations,
    x_q: Activations,
    y_fp: Activations,
}

impl QdropSteps {
    pub fn new(network: &Network, unit: &str) -> Self {
        let images = images(network, if channels(network) == 3 { 64 } else { 128 });
        let recipe = Recipe { round_warmup: 0.0, ..recipe(network, "qdrop") };
        let model = quantized(network, &recipe, &images);
        let index = position(&model, unit);
        let x_fp = through(model.units[..index].iter().map(|unit| &unit.fp), &images).unwrap();
        let x_q = prefix(&model, index, &images);
        let y_fp = through(std::iter::once(&model.units[index].fp), &x_fp).unwrap();
        let [x_fp, x_q, y_fp] = [x_fp, x_q, y_fp].map(|tensor| Activations::new(&tensor, &Memory::unlimited()));
        Self { model, index, recipe, x_fp, x_q, y_fp }
    }

    /// So many iterations.
    pub fn run(&self, iterations: usize) {
        let (x_fp, x_q, y_fp) = (&self.x_fp, &self.x_q, &self.y_fp);
        let unit = &self.model.units[self.index];
        let problem = Problem { unit, x_fp, x_q, y_fp, loss_weight: None, prediction: None };
        let phase = Phase { iterations, ..Phase::weights(&self.recipe) };
        train(&problem, &phase, Stream::new(0), &CONTROL, &Loops::unkept()).unwrap();
    }
}

/// The only cell of a grid of these values.
pub fn cell(arch: &str, method: &str, bits: &str, images: usize, iterations: usize) -> Cell {
    let grid = format!(
        "name = \"cell\"\n[base]\narch = \"{arch}\"\nmethod = \"{method}\"\nbits = \"{bits}\"\ncalib-images = {images}\n\
         recipe = {{ iterations = {iterations} }}\n"
    );
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), grid).unwrap();
    Experiment::read(file.path(), &Options::default()).unwrap().cells.remove(0)
}
