//! Times single steps of the harness on request, so that a peer can be timed in alternation (`scripts/bench_vs_torch.py`).
//!
//! Reads one JSON request per line, `{"task": "reconstruct", "arch": "resnet20", "unit": "layer1.0", "n": 20}`, and answers
//! with one line of JSON. `RAYON_NUM_THREADS` sets the number of threads; `--device cuda:0` computes on a GPU, whose work is
//! waited for before a clock is read; with `--tf32` in TensorFloat-32.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod steps;

use candle_core::{Device, Tensor};
use metaaug::allocator;
use metaaug::cli::device::device as open;
use metaaug::experiment::Keep;
use metaaug::hub::Hub;
use metaaug::launch::{EVAL_BATCH, Loader, Resources, Stopwatch, eval_batch, run_cell, sensible_memory_bytes};
use ptq::graph::fold_bn::fold_bn;
use ptq::graph::forward::through;
use ptq::graph::{Network, Op, Source};
use ptq::meta::config::Meta;
use ptq::meta::nets::Transform;
use ptq::meta::terms::Terms;
use ptq::meta::train::{self as meta_train, Originals, Trainable};
use ptq::meta::warm_up::untrained;
use ptq::ops::conv::Padding;
use ptq::ops::device::set_precision;
use ptq::ops::precision::Precision;
use ptq::quant::range_search::search_weight;
use ptq::recipe::Recipe;
use ptq::recon::activations::{Activations, Memory};
use ptq::recon::midway::Loops;
use ptq::rng::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::time::Instant;
use steps::{CONTROL, QdropSteps, device, device_memory, images, load, position, prefix, quantized, recipe, spec};

/// That of the harness.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    task: String,
    #[serde(default)]
    arch: String,
    #[serde(default)]
    unit: String,
    /// Repetitions, or images.
    #[serde(default)]
    n: usize,
}

fn main() {
    allocator::keep_freed();
    let device = open(&device_name()).unwrap_or_else(|error| panic!("{error}"));
    let precision =
        if std::env::args().any(|argument| argument == "--tf32") { Precision::Tf32 } else { Precision::F32 };
    set_precision(&device, precision).unwrap_or_else(|error| panic!("{error}"));
    let mut network: Option<(String, Network)> = None;
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line.unwrap()).expect("a request");
        let answer = match request.task.as_str() {
            "peak" => peak(&device),
            "cell" => cell(&request, &device),
            _ => {
                if network.as_ref().is_none_or(|(name, _)| *name != request.arch) {
                    network = Some((request.arch.clone(), load(&request.arch, &device)));
                }
                answer(&request, &network.as_ref().unwrap().1)
            }
        };
        println!("{answer}");
        std::io::stdout().flush().unwrap();
    }
}

fn answer(request: &Request, network: &Network) -> Value {
    match request.task.as_str() {
        "structure" => structure(network),
        "reconstruct" => reconstruct(request, network),
        "evaluate" => evaluate(request, network),
        "search" => search(request, network),
        "meta" => meta(request, network),
        other => panic!("no task {other}"),
    }
}

/// What follows `--device`, or the CPU; other arguments are Cargo's.
fn device_name() -> String {
    std::env::args().skip_while(|argument| argument != "--device").nth(1).unwrap_or_else(|| "cpu".to_string())
}

/// Milliseconds that `work` takes on `device`.
fn milliseconds(device: &Device, work: impl FnOnce()) -> f64 {
    device.synchronize().unwrap();
    let started = Instant::now();
    work();
    device.synchronize().unwrap();
    started.elapsed().as_secs_f64() * 1e3
}

/// The same, and the peak of the memory meanwhile: of what is in use on a GPU, else of the process.
fn measured(device: &Device, work: impl FnOnce()) -> (f64, Option<u64>) {
    let watch = Stopwatch::start();
    device_memory::reset(device);
    let ms = milliseconds(device, work);
    let peak_bytes = if device.is_cpu() { watch.cost().peak_memory_bytes } else { device_memory::peak_bytes(device) };
    (ms, peak_bytes)
}

/// Multiply-adds of a large matrix product, in GFLOP/s: the fastest of ten.
fn peak(device: &Device) -> Value {
    let n = if device.is_cpu() { 1024 } else { 4096 };
    let a = Tensor::randn(0f32, 1.0, (n, n), device).unwrap();
    let times = (0..10).map(|_| {
        milliseconds(device, || {
            a.matmul(&a).unwrap();
        })
    });
    json!({ "n": n, "gflops": 2.0 * (n as f64).powi(3) / times.fold(f64::INFINITY, f64::min) / 1e6 })
}

/// The nodes of every unit after folding, with the sizes of their weights, so that the peer builds the same.
fn structure(network: &Network) -> Value {
    let folded = fold_bn(network, recipe(network, "qdrop").batch_norm).unwrap();
    let mut x = images(network, 1);
    let units: Vec<Value> = folded
        .units
        .iter()
        .map(|unit| {
            let nodes: Vec<Value> = unit
                .nodes
                .iter()
                .map(|node| {
                    let inputs: Vec<i64> = node
                        .inputs
                        .iter()
                        .map(|input| match input {
                            Source::Input => -1,
                            Source::Node(index) => *index as i64,
                        })
                        .collect();
                    let mut of_node = json!({ "kind": node.op.kind(), "inputs": inputs });
                    if let Some(weight) = node.op.weight() {
                        of_node["weight"] = json!(weight.dims());
                    }
                    if let Op::Conv(conv) = &node.op {
                        let geometry = conv.geometry;
                        let padding = match geometry.padding {
                            Padding::Each(padding) => json!(padding),
                            Padding::Same => json!("same"),
                        };
                        of_node["geometry"] = json!([geometry.stride, padding, geometry.groups]);
                    }
                    if let Op::MaxPool(pool) = &node.op {
                        of_node["pool"] = json!([pool.kernel, pool.stride, pool.padding]);
                    }
                    of_node
                })
                .collect();
            let described = json!({ "name": unit.name, "input": x.dims()[1..], "nodes": nodes });
            x = through(std::iter::once(unit), &x).unwrap();
            described
        })
        .collect();
    json!({ "units": units })
}

/// Milliseconds per iteration of QDrop's reconstruction of one unit, after one that is not counted, as on the other side.
fn reconstruct(request: &Request, network: &Network) -> Value {
    let step = QdropSteps::new(network, &request.unit);
    step.run(1);
    let (ms, peak_bytes) = measured(device(network), || step.run(request.n));
    json!({ "ms": ms / request.n as f64, "peak_bytes": peak_bytes })
}

/// Milliseconds of a pass of `n` images through the quantized network, in batches as large as those of an evaluation, after one
/// batch that is not counted.
fn evaluate(request: &Request, network: &Network) -> Value {
    let images = images(network, request.n);
    let batch = eval_batch(images.dim(2).unwrap(), images.dim(3).unwrap());
    let model = quantized(network, &recipe(network, "qdrop"), &images);
    let pass = |start: usize| {
        let batch = images.narrow(0, start, batch.min(request.n - start)).unwrap();
        prefix(&model, model.units.len(), &batch);
    };
    pass(0);
    json!({ "ms": milliseconds(device(network), || (0..request.n).step_by(batch).for_each(pass)) })
}

/// Milliseconds and peak memory of a cell of QDrop on 1,024 images with `n` iterations per unit, nothing remembered but the full-precision
/// accuracy.
fn cell(request: &Request, device: &Device) -> Value {
    let cell = steps::cell(&request.arch, "qdrop", "W2A2", 1024, request.n);
    let folder = tempfile::tempdir().unwrap();
    let inputs = Loader::new(device, Hub::silent()).inputs(&cell).unwrap();
    let resources = Resources::new(folder.path(), sensible_memory_bytes());
    resources.full_precision.accuracy(&inputs, EVAL_BATCH, &CONTROL).unwrap();
    let mut test_top1 = 0.0;
    let (ms, peak_bytes) = measured(device, || {
        test_top1 = run_cell(&cell, &inputs, &resources, Keep::default(), None, &CONTROL).unwrap().metrics.test_top1;
    });
    json!({ "ms": ms, "peak_bytes": peak_bytes, "test_top1": test_top1 })
}

/// Milliseconds of Genie's search for the weight scales of the whole network at 2 bits, mean of `n`; the values come from the
/// device each time, as in a cell.
fn search(request: &Request, network: &Network) -> Value {
    let folded = fold_bn(network, recipe(network, "qdrop").batch_norm).unwrap();
    let nodes = folded.units.iter().flat_map(|unit| &unit.nodes);
    let weights: Vec<&Tensor> = nodes.filter_map(|node| node.op.weight()).collect();
    let search = recipe(network, "genie-m").weight_search;
    let ms = milliseconds(device(network), || {
        for weight in weights.repeat(request.n) {
            let values: Vec<f32> = weight.flatten_all().unwrap().to_vec1().unwrap();
            search_weight(&values, weight.dim(0).unwrap(), search, 2).unwrap();
        }
    });
    json!({ "ms": ms / request.n as f64 })
}

/// Milliseconds per iteration of MetaAug's training of a UNet of base 8 and depth 2 for one unit, after one that is not counted,
/// and peak memory.
fn meta(request: &Request, network: &Network) -> Value {
    let images = images(network, 128);
    let recipe = Recipe { round_warmup: 0.0, ..recipe(network, "metaaug") };
    let model = quantized(network, &recipe, &images);
    let index = position(&model, &request.unit);
    let x_q = Activations::new(&prefix(&model, index, &images), &Memory::unlimited());
    let config = Transform { base: 8, depth: 2, ..Transform::published() };
    let net = untrained(&config, &images, Stream::new(0)).unwrap();
    let labels = vec![0; 128];
    let originals = Originals::new(&model, &images, &labels, &CONTROL).unwrap();
    let run = |iterations: usize| {
        let meta = Meta { iterations, ..Meta::published(spec(network.arch)) };
        let transform = Trainable { net: &net, meta: &meta, terms: &Terms::published() };
        let (stream, loops) = (Stream::new(0), Loops::unkept());
        meta_train::train(&transform, &model, index, (&originals, &x_q), &recipe, (stream, &CONTROL, &loops)).unwrap();
    };
    run(1);
    let (ms, peak_bytes) = measured(device(network), || run(request.n));
    json!({ "ms": ms / request.n as f64, "peak_bytes": peak_bytes })
}
