//! Whole cells without a kernel of ours: what a device computes that has none.

use crate::cli::{Bench, ended};
use assert_cmd::Command;
use metaaug::store::{Predictions, Store, read_traces};
use std::collections::BTreeMap;

const GRID: &str = r#"
name = "every-method"
[base]
arch = "resnet20"
bits = "W4A4"
calib-images = 32
recipe = { iterations = 4, batch = 16 }
transform = { base = 4, depth = 2, warmup-iterations = 3 }
meta = { iterations = 2, outer-batch = 16 }
[axes]
method = ["rtn", "adaround", "brecq", "qdrop", "genie-m", "metaaug"]
[[include]]
method = "pd-quant"
recipe = { correction-iterations = 3 }
[[include]]
arch = "mobilenetv2-tiny"
method = "qdrop"
"#;

/// First and last loss of every phase of every unit.
type Losses = Vec<(String, f64, f64)>;

/// Predictions and losses of every cell, by its method and architecture.
fn run(bench: &Bench, results: &str, composed: &str) -> BTreeMap<String, (Predictions, Losses)> {
    let mut command = Command::cargo_bin("harness").unwrap();
    command.current_dir(bench.path()).env("HARNESS_CACHE", bench.path().join(results).join("cache"));
    command.env("HARNESS_COMPOSED", composed).args(["run", "grid.toml", "--quiet", "--results", results]);
    let end = ended(command);
    assert_eq!(end.code, 0, "{}", end.stderr);
    let store = Store::new(&bench.path().join(results), "every-method");
    let cells = store.scan().unwrap().records.into_iter().map(|record| {
        let folder = store.run_folder(&record.run_id);
        let traces = read_traces(&folder).unwrap().into_iter();
        let ends = traces.map(|trace| (trace.unit, trace.loss[0], *trace.loss.last().unwrap())).collect();
        let name = format!("{} {}", record.cell.arch, record.cell.method);
        (name, (Predictions::read(&folder).unwrap(), ends))
    });
    cells.collect()
}

#[test]
fn cells_of_every_method_are_the_same_from_compositions_of_candles_operations() {
    let bench = Bench::new(GRID);
    let (native, composed) = (run(&bench, "native", "0"), run(&bench, "composed", "1"));
    assert_eq!(native.len(), 8);
    for (cell, (predictions, losses)) in &native {
        let (other_predictions, other_losses) = &composed[cell];
        let same = predictions.test.iter().zip(&other_predictions.test).filter(|(a, b)| a == b).count();
        // Last digits of sums differ, and rounding to levels amplifies some.
        assert!(same * 100 >= predictions.test.len() * 98, "{cell}: {same} of {}", predictions.test.len());
        assert_eq!(losses.len(), other_losses.len(), "{cell}");
        for ((unit, first, last), (_, other_first, other_last)) in losses.iter().zip(other_losses) {
            for (a, b) in [(first, other_first), (last, other_last)] {
                assert!((a - b).abs() <= 0.02 * a.abs(), "{cell}, {unit}: {a} and {b}");
            }
        }
    }
}
