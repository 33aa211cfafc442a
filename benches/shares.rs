//! What of a cell is the same for other cells, and what each part costs: `cargo bench --bench shares`.
//!
//! Arguments after `--`: architecture, method, bits, images (default: `resnet20 qdrop W2A2 1024`). Each time is the fastest of
//! three; an iteration is that of the unit at hand, mean of ten.

#![allow(clippy::unwrap_used, clippy::panic)]

mod steps;

use candle_core::{Device, Tensor};
use metaaug::experiment::Cell;
use metaaug::hub::Hub;
use metaaug::launch::{EVAL_BATCH, Inputs, Loader, evaluate};
use ptq::graph::fold_bn::fold_bn;
use ptq::quant::model::{Mode, QuantModel};
use ptq::quantize::added::Added;
use ptq::quantize::{Calibration, quantize};
use ptq::recipe::{Prefix, Recipe};
use ptq::recon::activations::{Activations, Memory};
use ptq::recon::event::Control;
use ptq::recon::propagate::{full_precision, in_batches};
use ptq::recon::trace::Traces;
use std::time::Instant;
use steps::{CONTROL, cell};

/// Iterations per unit that a cell is taken to have.
const ITERATIONS: f64 = 1000.0;

fn main() {
    // Cargo's own `--bench` is no argument of ours.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let argument = |index: usize, default: &str| arguments.get(index).cloned().unwrap_or_else(|| default.to_string());
    let images = argument(3, "1024").parse().unwrap();
    let cell = cell(&argument(0, "resnet20"), &argument(1, "qdrop"), &argument(2, "W2A2"), images, 10);
    let recipe = Recipe { round_warmup: 0.0, ..cell.recipe.clone() };
    let bits = cell.bits;
    let inputs = Loader::new(&Device::Cpu, Hub::silent()).inputs(&cell).unwrap();
    let network = fold_bn(&inputs.network, recipe.batch_norm).unwrap();
    let images = &inputs.calib.images;

    let (weights, mut model) = fastest(|| QuantModel::new(&network, bits, cell.setting, &recipe).unwrap());
    let searched = images.narrow(0, 0, recipe.act_search_images.min(images.dim(0).unwrap())).unwrap();
    let (acts, ()) = fastest(|| {
        let mut model = QuantModel::new(&network, bits, cell.setting, &recipe).unwrap();
        model.search_acts(&searched, recipe.act_search, Mode::of_prefix(Prefix::FullPrecision)).unwrap();
    });
    model.search_acts(&searched, recipe.act_search, Mode::of_prefix(Prefix::FullPrecision)).unwrap();
    let (outputs, outputs_bytes) = fastest(|| {
        let mut x = Activations::new(images, &Memory::unlimited());
        let mut bytes = 0;
        for unit in &network.units {
            x = full_precision(unit, &x, &CONTROL).unwrap();
            bytes += cell.calib_images * x.narrow(0, 1).unwrap().elem_count() * size_of::<f32>();
        }
        bytes
    });
    let (prefix, ()) = fastest(|| {
        let mut x = images.clone();
        for unit in &model.units {
            x = in_batches(&x, &CONTROL, |x| unit.forward(x, Mode::HARD)).unwrap();
        }
    });
    let (test, _) = fastest(|| evaluate(&inputs.test, EVAL_BATCH, &CONTROL, |x| pass(&model, x)).unwrap().top1());
    let steps = reconstruction(&inputs, &network, &cell, &recipe);

    let rows = [
        ("weight scales", weights),
        ("activation ranges, with their full-precision pass", acts - weights),
        ("full-precision outputs of all units", outputs),
        ("quantized inputs of all units", prefix),
        ("test images, quantized", test),
        ("reconstruction, 1000 iterations per unit", steps),
    ];
    let total: f64 = rows.iter().map(|(_, seconds)| seconds).sum();
    println!("{} {} {bits}, {} images", cell.arch, cell.method, cell.calib_images);
    for (name, seconds) in rows {
        println!("  {name:52} {seconds:9.3} s  {:5.2} %", 100.0 * seconds / total);
    }
    println!("  full-precision outputs take {:.0} MB", outputs_bytes as f64 / 1e6);
    let (write, path) = fastest(|| {
        let file = tempfile::NamedTempFile::new_in(".").unwrap();
        std::fs::write(file.path(), vec![1u8; outputs_bytes]).unwrap();
        file
    });
    let (read, _) = fastest(|| std::fs::read(path.path()).unwrap().len());
    println!("  writing as many bytes takes {write:.3} s, reading them {read:.3} s (from the page cache)");
}

fn pass(model: &QuantModel, x: &Tensor) -> ptq::Result<Tensor> {
    model.units.iter().try_fold(x.clone(), |x, unit| unit.forward(&x, Mode::HARD))
}

/// Seconds of the steps of all units for 1,000 iterations each, from the traces of ten.
fn reconstruction(inputs: &Inputs, network: &ptq::graph::Network, cell: &Cell, recipe: &Recipe) -> f64 {
    let memory = Memory::unlimited();
    let calib = Calibration {
        images: &inputs.calib.images,
        memory: &memory,
        trained: &inputs.network,
        added: Added::default(),
    };
    let traces = Traces::default();
    let control = Control { observe: &|event| traces.note(&event), cancelled: CONTROL.cancelled };
    quantize(network, &calib, (cell.bits, cell.setting), recipe, 0, &control).unwrap();
    traces.finish().iter().map(|trace| trace.wall_s).sum::<f64>() * ITERATIONS / recipe.iterations as f64
}

/// Seconds of the fastest of three runs, and its result.
fn fastest<R>(run: impl Fn() -> R) -> (f64, R) {
    let runs = (0..3).map(|_| {
        let started = Instant::now();
        let result = run();
        (started.elapsed().as_secs_f64(), result)
    });
    runs.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}
