//! `harness list` over 10,000 stored runs: the whole command, from its start to the last line.

#![allow(clippy::unwrap_used)]

use divan::Bencher;
use metaaug::experiment::{Cell, Experiment, Hashes, Options, Revisions, RunId};
use metaaug::store::record::{Cost, FORMAT, Metrics, Provenance, Record, Status};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;

fn main() {
    divan::main();
}

const EXPERIMENTS: u64 = 10;
const RUNS: u64 = 10_000;

/// Runs of a cell with all its tables, in ten experiments.
static RESULTS: LazyLock<TempDir> = LazyLock::new(|| {
    let results = tempfile::tempdir().unwrap();
    let grid = results.path().join("grid.toml");
    std::fs::write(&grid, "name = \"x\"\n[base]\narch = \"resnet20\"\nmethod = \"metaaug\"\nbits = \"W2A2\"\n")
        .unwrap();
    let cell = Experiment::read(&grid, &Options::default()).unwrap().cells.remove(0);
    for seed in 0..RUNS {
        let experiment = format!("made-{}", seed % EXPERIMENTS);
        let cell = Cell { seed, ..cell.clone() };
        let hashes = Hashes { weights: "aa".repeat(32), calib: "bb".repeat(32), test: "cc".repeat(32) };
        let revisions = Revisions { method: 1, ..Revisions::default() };
        let record = Record {
            format: FORMAT,
            run_id: RunId::new(&cell, &hashes, &revisions).to_string(),
            experiment: experiment.clone(),
            cell,
            method_revision: revisions.method,
            revisions: revisions.modules,
            hashes,
            status: Status::Done,
            error: None,
            preprocess: None,
            weights_source: None,
            data_source: None,
            metrics: Some(Metrics {
                skipped_images: 0,
                skipped_calib_images: 0,
                fp_test_top1: 0.9276,
                test_top1: (seed * 7919 % RUNS) as f64 / RUNS as f64,
                calib_top1: 0.9,
                test_images: 10_000,
            }),
            cost: Cost { wall_s: 1.0, cpu_s: 2.0, peak_memory_bytes: Some(3) },
            provenance: Provenance::now("cpu", 2, 250, "grid.toml"),
        };
        let folder = results.path().join(experiment).join("runs").join(&record.run_id);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("record.json"), serde_json::to_vec_pretty(&record).unwrap()).unwrap();
    }
    results
});

const FILTER: &str = "recipe.drop-input(<1) & meta.inner(adam) & test(>50%)";

#[divan::bench(args = [
    "",
    "--format=csv",
    "--json",
    "--sort=test --columns=run,test,recipe.iterations,meta.lr",
    "--filter",
])]
fn list(bencher: Bencher, arguments: &str) {
    let results = RESULTS.path();
    bencher.bench(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
        command.arg("list").arg("--results").arg(results).args(arguments.split_whitespace()).stdout(Stdio::null());
        if arguments == "--filter" {
            command.arg(FILTER);
        }
        assert!(command.status().unwrap().success());
    });
}
