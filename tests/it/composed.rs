//! Whole cells without a kernel of ours: what a device computes that has none.

use crate::cli::{Bench, ended};
use assert_cmd::Command;
use metaaug::store::{Predictions, Store, read_traces};
use std::collections::BTreeMap;
use std::path::Path;

const GRID: &str = r#"
name = "every-method"
[base]
arch = "resnet20"
weights = "file:ASSETS/resnet20-fashion-mnist/model.safetensors"
bits = "W4A4"
data = "idx:data"
calib-images = 32
recipe = { iterations = 4, batch = 16 }
transform = { base = 4, depth = 2, warmup-iterations = 2 }
meta = { iterations = 1, outer-batch = 16 }
[axes]
method = ["rtn", "adaround", "brecq", "qdrop", "genie-m", "metaaug"]
[[include]]
method = "pd-quant"
recipe = { correction-iterations = 3 }
[[include]]
arch = "mobilenetv2-tiny"
weights = "file:ASSETS/mobilenetv2-tiny-fashion-mnist/model.safetensors"
method = "qdrop"
"#;

/// Writes a data set of MNIST's form into `folder`: waves of few pixels' length, which a network tells apart as it likes.
fn write_images(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    for (split, images) in [("train", 64u32), ("t10k", 200)] {
        let sizes = |magic: u32, sizes: &[u32]| -> Vec<u8> {
            std::iter::once(&magic).chain(sizes).flat_map(|number| number.to_be_bytes()).collect()
        };
        let mut pixels = sizes(0x803, &[images, 28, 28]);
        for (image, i) in (0..images).flat_map(|image| (0..28 * 28).map(move |i| (image, i))) {
            let (y, x, image) = (f64::from(i / 28), f64::from(i % 28), f64::from(image));
            let wave = (0.1 * image + 0.21 * x + 0.02 * image * y).sin() * (0.37 * y - 0.05 * image * x).cos();
            pixels.push((127.5 + 127.0 * wave) as u8);
        }
        let mut labels = sizes(0x801, &[images]);
        labels.extend((0..images).map(|image| (image % 10) as u8));
        std::fs::write(folder.join(format!("{split}-images-idx3-ubyte")), pixels).unwrap();
        std::fs::write(folder.join(format!("{split}-labels-idx1-ubyte")), labels).unwrap();
    }
}

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
    let bench = Bench::new(&GRID.replace("ASSETS", concat!(env!("CARGO_MANIFEST_DIR"), "/assets")));
    write_images(&bench.path().join("data"));
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
