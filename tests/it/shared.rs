//! What cells and runs share through the cache folder.

use crate::cli::{Bench, assert_contains, ended};
use assert_cmd::Command;
use metaaug::store::{Predictions, Store, read_traces};
use std::path::Path;

const GRID: &str = r#"
name = "tiny"
[base]
arch = "resnet20"
bits = "W2A2"
calib-images = 16
recipe = { iterations = 2, batch = 8 }
[axes]
method = ["rtn", "qdrop"]
"#;

/// Unit, reconstruction error and regulariser of each trace.
type Losses = Vec<(String, Vec<f64>, Vec<f64>)>;

/// Runs the grid of `bench` with its own cache and `more` arguments, and returns predictions and losses of its cells.
fn run(bench: &Bench, results: &str, more: &[&str]) -> Vec<(Predictions, Losses)> {
    run_saying(bench, results, more).0
}

/// The same, and what the harness printed.
fn run_saying(bench: &Bench, results: &str, more: &[&str]) -> (Vec<(Predictions, Losses)>, String) {
    let mut command = Command::cargo_bin("harness").unwrap();
    command.current_dir(bench.path()).env("HARNESS_CACHE", bench.path().join("cache"));
    let end = ended({
        command.args(["run", "grid.toml", "--quiet", "--results", results]).args(more);
        command
    });
    assert_eq!(end.code, 0, "{}", end.stderr);
    let store = Store::new(&bench.path().join(results), "tiny");
    let records = store.scan().unwrap().records;
    let of_run = |folder: &Path| {
        let traces = read_traces(folder).unwrap().into_iter();
        (Predictions::read(folder).unwrap(), traces.map(|trace| (trace.unit, trace.loss, trace.regulariser)).collect())
    };
    (records.iter().map(|record| of_run(&store.run_folder(&record.run_id))).collect(), end.stdout)
}

#[test]
fn a_run_is_the_same_with_any_cache_and_any_memory() {
    let bench = Bench::new(GRID);
    let cold = run(&bench, "cold", &[]);
    let ranges = bench.path().join("cache/ranges");
    let entries = || std::fs::read_dir(&ranges).unwrap().map(|entry| entry.unwrap().path());
    // Both methods start from the same weight scales and activation ranges.
    assert_eq!((cold.len(), entries().count()), (2, 2));
    assert!(cold[0].1.is_empty() != cold[1].1.is_empty());
    let whole: Vec<Vec<u8>> = entries().map(|path| std::fs::read(path).unwrap()).collect();
    assert_eq!(run(&bench, "warm", &["--memory", "4GiB"]), cold);
    assert_eq!(run(&bench, "spilled", &["--memory", "0"]), cold);
    assert_eq!(std::fs::read_dir(bench.path().join("cache/activations")).unwrap().count(), 0);
    for path in entries() {
        let mut entry = std::fs::read(&path).unwrap();
        let middle = entry.len() / 2;
        entry[middle] ^= 0x40;
        std::fs::write(path, entry).unwrap();
    }
    assert_eq!(run(&bench, "damaged", &["--memory", "100kB"]), cold);
    assert_eq!(entries().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>(), whole);
}

#[test]
fn cells_at_the_same_time_give_what_they_give_alone_and_compute_what_they_share_once() {
    let bench = Bench::new(GRID);
    let trace = bench.path().join("trace.json");
    let (beside, said) = run_saying(&bench, "beside", &["--jobs", "2", &format!("--profile={}", trace.display())]);
    for record in Store::new(&bench.path().join("beside"), "tiny").scan().unwrap().records {
        // The process's memory is not one cell's.
        assert_eq!(record.cost.peak_memory_bytes, None);
        assert!(record.cost.cpu_s > 0.0 && record.provenance.threads >= 1);
    }
    assert_eq!(run(&bench, "alone", &["--jobs", "auto"]), beside);
    assert_contains(&said, &["\n   reconstruction", "\n         backward", "convolution, input gradient", "all else"]);
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let named = |name: &str| trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["name"] == name).count();
    assert_eq!(["inputs", "reconstruction", "weight scales", "stem"].map(named), [2, 2, 1, 1]);
    assert!(named("convolution, weight gradient") > 0 && named("backward") > 0);
}

#[test]
fn no_jobs_and_jobs_beside_devices_are_refused() {
    let bench = Bench::new(GRID);
    for arguments in [&["--jobs", "0"][..], &["--jobs", "many"], &["--jobs", "2", "--devices", "cpu,cpu"]] {
        let end = bench.harness(&[&["run", "grid.toml"], arguments].concat());
        assert_eq!(end.code, 2, "{arguments:?}");
        assert_contains(&end.stderr, &["--jobs"]);
    }
}
