//! Stored runs that nobody computed, for verbs that read them.

use crate::cli::{Ended, ended};
use assert_cmd::Command;
use candle_core::Device;
use metaaug::experiment::Hashes;
use metaaug::experiment::{Cell, Experiment, Options, Revisions, RunId};
use metaaug::hub::Hub;
use metaaug::launch::Loader;
use metaaug::store::record::{Cost, FORMAT, Metrics, Provenance, Record, Status};
use metaaug::store::{Artefacts, Predictions, Store};
use ptq::recipe::Bits;
use std::path::PathBuf;

/// A folder of results.
pub struct Results {
    folder: tempfile::TempDir,
    /// What runs start from; seed, bits and so on are set on a copy.
    pub cell: Cell,
}

impl Results {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let grid =
            "name = \"made\"\n[base]\narch = \"resnet20\"\nmethod = \"qdrop\"\nbits = \"W2A2\"\ncalib-images = 32\n";
        let path = folder.path().join("grid.toml");
        std::fs::write(&path, grid).unwrap();
        let cell = Experiment::read(&path, &Options::default()).unwrap().cells.remove(0);
        Self { folder, cell }
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// The cells of a grid file in the folder, with the ids that its plan gives them.
    pub fn planned(&self, grid: &str) -> Vec<(Cell, String)> {
        let cells = Experiment::read(&self.folder.path().join(grid), &Options::default()).unwrap().cells;
        let plan = self.harness(&["plan", grid]);
        assert_eq!(plan.code, 0, "{}", plan.stderr);
        let ids = plan.stdout.lines().filter_map(|line| line.split_whitespace().nth(1));
        cells.into_iter().zip(ids.map(str::to_string).collect::<Vec<_>>()).collect()
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("results")
    }

    /// A cell of `method` at `bits` with `seed`.
    pub fn cell(&self, method: &str, bits: &str, seed: u64) -> Cell {
        Cell { method: method.into(), bits: bits.parse::<Bits>().unwrap(), seed, ..self.cell.clone() }
    }

    /// A record of `cell` that predicted rightly what `right` says.
    pub fn record(&self, experiment: &str, cell: &Cell, right: &[bool]) -> Record {
        let hashes = Hashes { weights: "aa".repeat(32), calib: "bb".repeat(32), test: "cc".repeat(32) };
        let revisions = Revisions::of(cell);
        let top1 = right.iter().filter(|right| **right).count() as f64 / right.len() as f64;
        Record {
            format: FORMAT,
            run_id: RunId::new(cell, &hashes, &revisions).to_string(),
            experiment: experiment.into(),
            cell: cell.clone(),
            method_revision: revisions.method,
            revisions: revisions.modules,
            weights_source: None,
            data_source: None,
            hashes,
            status: Status::Done,
            error: None,
            metrics: Some(Metrics {
                fp_test_top1: 0.9276,
                test_top1: top1,
                calib_top1: 1.0,
                test_images: right.len(),
                skipped_images: 0,
                skipped_calib_images: 0,
            }),
            cost: Cost { wall_s: 1.5, cpu_s: 3.0, peak_memory_bytes: None },
            provenance: Provenance {
                device: "cpu".into(),
                processor: Some("one (AVX2)".into()),
                threads: 1,
                eval_batch: 250,
                grid: "grid.toml".into(),
                crate_version: "0.1.0".into(),
                git_revision: "0123456789".into(),
                started_unix_s: 0,
            },
            preprocess: None,
        }
    }

    /// The same under the id that plans give `cell`, whose inputs are looked at for it.
    pub fn planned_record(&self, experiment: &str, cell: &Cell, right: &[bool]) -> Record {
        let hashes = Loader::new(&Device::Cpu, Hub::silent()).hashes(cell).unwrap();
        identified(Record { hashes, ..self.record(experiment, cell, right) })
    }

    /// Stores `record` with predictions that are right where `right` says; returns its folder.
    pub fn store(&self, record: &Record, right: &[bool]) -> PathBuf {
        self.store_labelled(record, right, vec![0; right.len()])
    }

    /// The same for test images of these labels.
    pub fn store_labelled(&self, record: &Record, right: &[bool], labels: Vec<u32>) -> PathBuf {
        let store = Store::new(&self.path(), &record.experiment);
        let _lock = store.lock().unwrap();
        let predictions = Predictions {
            test: right.iter().zip(&labels).map(|(right, label)| label + u32::from(!right)).collect(),
            calib: vec![0],
            test_labels: labels,
            calib_labels: vec![0],
            calib_indices: vec![0],
        };
        let artefacts = Artefacts { predictions: Some(predictions), ..Artefacts::default() };
        store.write_run(record, &record.cell.to_toml().unwrap(), &artefacts).unwrap();
        store.run_folder(&record.run_id)
    }

    /// Both of the above for experiment `made`; returns the run's id.
    pub fn add(&self, cell: &Cell, right: &[bool]) -> String {
        let record = self.record("made", cell, right);
        self.store(&record, right);
        record.run_id
    }

    pub fn harness(&self, args: &[&str]) -> Ended {
        let mut command = Command::cargo_bin("harness").unwrap();
        // The cache of whoever runs the tests is not for them to tidy.
        command.current_dir(self.folder.path()).env("HARNESS_CACHE", self.folder.path().join("cache")).args(args);
        ended(command)
    }
}

/// `record` under the id of what it says.
pub fn identified(mut record: Record) -> Record {
    record.run_id = RunId::new(&record.cell, &record.hashes, &record.made_with()).to_string();
    record
}

/// `n` images of which the first `right` are right, the rest wrong.
pub fn first(right: usize, n: usize) -> Vec<bool> {
    (0..n).map(|index| index < right).collect()
}
