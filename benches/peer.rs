//! Times single steps of the harness on request, so that a peer can be timed in alternation (`scripts/bench_vs_torch.py`).
//!
//! Reads one JSON request per line, `{"task": "reconstruct", "arch": "resnet20", "unit": "layer1.0", "n": 20}`, and answers
//! with one line of JSON. `RAYON_NUM_THREADS` sets the number of threads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod steps;

use candle_core::{Device, Tensor};
use metaaug::allocator;
use metaaug::assets::hub::Hub;
use metaaug::graph::fold_bn::fold_bn;
use metaaug::graph::forward::through;
use metaaug::graph::{Network, Op, Source};
use metaaug::launch::{Caches, Loader, Stopwatch, eval_batch, run_cell, sensible_memory_bytes};
use metaaug::meta::config::{Meta, Terms, Transform};
use metaaug::meta::train::{self as meta_train, Originals, Trainable};
use metaaug::meta::warm_up::untrained;
use metaaug::quant::range_search::search_weight;
use metaaug::recon::activations::{Activations, Memory};
use metaaug::recon::recipe::Recipe;
use metaaug::rng::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::time::Instant;
use steps::{CONTROL, QdropSteps, images, load, position, prefix, quantized, recipe, spec};

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
    let mut network: Option<(String, Network)> = None;
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line.unwrap()).expect("a request");
        let answer = match request.task.as_str() {
            "peak" => peak(),
            _ => {
                if network.as_ref().is_none_or(|(name, _)| *name != request.arch) {
                    network = Some((request.arch.clone(), load(&request.arch)));
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
        "cell" => cell(request),
        other => panic!("no task {other}"),
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Multiply-adds of a large matrix product, in GFLOP/s: the fastest of ten.
fn peak() -> Value {
    let n = 1024;
    let a = Tensor::randn(0f32, 1.0, (n, n), &Device::Cpu).unwrap();
    let best = (0..10).map(|_| {
        let started = Instant::now();
        a.matmul(&a).unwrap();
        started.elapsed().as_secs_f64()
    });
    json!({ "gflops": 2.0 * (n as f64).powi(3) / best.fold(f64::INFINITY, f64::min) / 1e9 })
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
                        of_node["geometry"] = json!([geometry.stride, geometry.padding, geometry.groups]);
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
    let watch = Stopwatch::start();
    let started = Instant::now();
    step.run(request.n);
    let ms = milliseconds(started) / request.n as f64;
    json!({ "ms": ms, "peak_bytes": watch.cost().peak_memory_bytes })
}

/// Milliseconds of a pass of `n` images through the quantized network, in batches as large as those of an evaluation.
fn evaluate(request: &Request, network: &Network) -> Value {
    let images = images(network, request.n);
    let batch = eval_batch(images.dim(2).unwrap(), images.dim(3).unwrap());
    let model = quantized(network, &recipe(network, "qdrop"), &images.narrow(0, 0, 64).unwrap());
    let started = Instant::now();
    for start in (0..request.n).step_by(batch) {
        prefix(&model, model.units.len(), &images.narrow(0, start, batch.min(request.n - start)).unwrap());
    }
    json!({ "ms": milliseconds(started) })
}

/// Milliseconds and peak memory of a cell of QDrop on 1,024 images with `n` iterations per unit, nothing remembered but the full-precision
/// accuracy.
fn cell(request: &Request) -> Value {
    let cell = steps::cell(&request.arch, "qdrop", "W2A2", 1024, request.n);
    let folder = tempfile::tempdir().unwrap();
    let inputs = Loader::new(&Device::Cpu, Hub::silent()).inputs(&cell).unwrap();
    let caches = Caches::new(folder.path(), sensible_memory_bytes());
    caches.full_precision.accuracy(&inputs, &CONTROL).unwrap();
    let watch = Stopwatch::start();
    let started = Instant::now();
    let result = run_cell(&cell, &inputs, &caches, &CONTROL, &mut Vec::new()).unwrap();
    let (ms, peak_bytes) = (milliseconds(started), watch.cost().peak_memory_bytes);
    json!({ "ms": ms, "peak_bytes": peak_bytes, "test_top1": result.metrics.test_top1 })
}

/// Milliseconds of Genie's search for the weight scales of the whole network at 2 bits, mean of `n`.
fn search(request: &Request, network: &Network) -> Value {
    let folded = fold_bn(network, recipe(network, "qdrop").batch_norm).unwrap();
    let nodes = folded.units.iter().flat_map(|unit| &unit.nodes);
    let weights: Vec<(Vec<f32>, usize)> = nodes
        .filter_map(|node| node.op.weight())
        .map(|weight| (weight.flatten_all().unwrap().to_vec1().unwrap(), weight.dim(0).unwrap()))
        .collect();
    let search = recipe(network, "genie-m").weight_search;
    let started = Instant::now();
    for _ in 0..request.n {
        for (values, channels) in &weights {
            search_weight(values, *channels, search, 2);
        }
    }
    json!({ "ms": milliseconds(started) / request.n as f64 })
}

/// Milliseconds per iteration of MetaAug's training of a UNet of base 8 and depth 2 for one unit, and peak memory.
fn meta(request: &Request, network: &Network) -> Value {
    let images = images(network, 128);
    let recipe = Recipe { round_warmup: 0.0, ..recipe(network, "metaaug") };
    let model = quantized(network, &recipe, &images);
    let index = position(&model, &request.unit);
    let x_q = Activations::new(&prefix(&model, index, &images), &Memory::unlimited());
    let config = Transform { base: 8, depth: 2, ..Transform::published() };
    let net = untrained(&config, &images, Stream::new(0)).unwrap();
    let meta = Meta { iterations: request.n, ..Meta::published(spec(network.arch)) };
    let transform = Trainable { net: &net, meta: &meta, terms: &Terms::published() };
    let labels = vec![0; 128];
    let originals = Originals::new(&model, &images, &labels, &CONTROL).unwrap();
    let watch = Stopwatch::start();
    let started = Instant::now();
    let context = (Stream::new(0), &CONTROL);
    meta_train::train(&transform, &model, index, (&originals, &x_q), &recipe, context, &mut Vec::new()).unwrap();
    let ms = milliseconds(started) / request.n as f64;
    json!({ "ms": ms, "peak_bytes": watch.cost().peak_memory_bytes })
}
