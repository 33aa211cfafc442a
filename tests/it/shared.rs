//! What cells and runs share through the cache folder.

use crate::cli::{Bench, ended};
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

/// Runs the grid of `bench` with its own cache, and returns predictions and losses of its cells.
fn run(bench: &Bench, results: &str, memory: &str) -> Vec<(Predictions, Losses)> {
    let mut command = Command::cargo_bin("harness").unwrap();
    command.current_dir(bench.path()).env("HARNESS_CACHE", bench.path().join("cache"));
    let end = ended({
        command.args(["run", "grid.toml", "--quiet", "--results", results, "--memory", memory]);
        command
    });
    assert_eq!(end.code, 0, "{}", end.stderr);
    let store = Store::new(&bench.path().join(results), "tiny");
    let records = store.scan().unwrap().records;
    let of_run = |folder: &Path| {
        let traces = read_traces(folder).unwrap().into_iter();
        (Predictions::read(folder).unwrap(), traces.map(|trace| (trace.unit, trace.loss, trace.regulariser)).collect())
    };
    records.iter().map(|record| of_run(&store.run_folder(&record.run_id))).collect()
}

#[test]
fn a_run_is_the_same_with_any_cache_and_any_memory() {
    let bench = Bench::new(GRID);
    let cold = run(&bench, "cold", "4GiB");
    let ranges = bench.path().join("cache/ranges");
    let entries = || std::fs::read_dir(&ranges).unwrap().map(|entry| entry.unwrap().path());
    // Both methods start from the same weight scales and activation ranges.
    assert_eq!((cold.len(), entries().count()), (2, 2));
    assert!(cold[0].1.is_empty() != cold[1].1.is_empty());
    let whole: Vec<Vec<u8>> = entries().map(|path| std::fs::read(path).unwrap()).collect();
    assert_eq!(run(&bench, "warm", "4GiB"), cold);
    assert_eq!(run(&bench, "spilled", "0"), cold);
    assert_eq!(std::fs::read_dir(bench.path().join("cache/activations")).unwrap().count(), 0);
    for path in entries() {
        let mut entry = std::fs::read(&path).unwrap();
        let middle = entry.len() / 2;
        entry[middle] ^= 0x40;
        std::fs::write(path, entry).unwrap();
    }
    assert_eq!(run(&bench, "damaged", "100kB"), cold);
    assert_eq!(entries().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>(), whole);
}
