//! What is kept of one run.

use crate::data::preprocess::Preprocess;
use crate::experiment::facts::Fact;
pub use crate::experiment::facts::{Cost, Metrics};
use crate::experiment::{Cell, Hashes, Revisions};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Version of [`Record`]'s JSON; a new one comes with a step in `migrate.rs`. 1: first. 2: `provenance.processor`.
pub const FORMAT: u32 = 2;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Done,
    Failed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Done => "done",
            Status::Failed => "failed",
        })
    }
}

/// Where a run was made: recorded, not part of its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    pub device: String,
    /// Model and vector instructions; `None` in records that did not name it.
    pub processor: Option<String>,
    pub threads: usize,
    pub eval_batch: usize,
    /// The grid file, as given on the command line.
    pub grid: String,
    pub crate_version: String,
    /// Revision of the sources the binary was built from, `-dirty` if they were modified.
    pub git_revision: String,
    /// Seconds since 1970 (UTC).
    pub started_unix_s: u64,
}

/// One run, as stored in `record.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub run_id: String,
    pub experiment: String,
    pub cell: Cell,
    pub method_revision: u32,
    /// Of the modules that computed it, by name; one that is not named was at revision 1, as in records from before this was kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub revisions: BTreeMap<String, u32>,
    pub hashes: Hashes,
    /// The file that the weights were loaded from, see [`Checkpoint`](crate::assets::checkpoint::Checkpoint).
    #[serde(default)]
    pub weights_source: Option<String>,
    /// The data set on the Hub that the images were loaded from, with the commit; `None` for images from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_source: Option<String>,
    pub status: Status,
    /// Why it failed; `None` for [`Status::Done`].
    pub error: Option<String>,
    /// `None` unless [`Status::Done`].
    pub metrics: Option<Metrics>,
    pub cost: Cost,
    pub provenance: Provenance,
    /// How the images were preprocessed; `None` in records from before this was kept, and if none were loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<Preprocess>,
}

impl Record {
    /// The revisions of all that computed it.
    pub fn made_with(&self) -> Revisions {
        Revisions { method: self.method_revision, modules: self.revisions.clone() }
    }

    /// A number that was measured, in its stored unit.
    pub fn fact(&self, fact: &Fact) -> Option<f64> {
        (fact.value)(self.metrics.as_ref(), &self.cost)
    }
}

#[cfg(test)]
impl Record {
    /// A finished run of `method` on resnet20, for tests.
    pub fn sample(run_id: &str, method: &str, bits: &str, seed: u64) -> Self {
        let recipe = ptq::methods::find(method).unwrap().recipe;
        Self {
            format: FORMAT,
            run_id: run_id.into(),
            experiment: "test".into(),
            cell: Cell {
                arch: "resnet20".into(),
                weights: "embedded".into(),
                dataset: "fashion-mnist".into(),
                data: None,
                corrupt: crate::data::Corrupt::Error,
                preprocess: crate::data::CardSize::Test,
                precision: Default::default(),
                bits: bits.parse().unwrap(),
                method: method.into(),
                variant: None,
                setting: ptq::recipe::Setting::Qdrop,
                calib_images: 64,
                seed,
                augment: Vec::new(),
                transform: None,
                meta: None,
                terms: None,
                recipe: recipe(ptq::arch::find("resnet20").unwrap()),
            },
            method_revision: 1,
            revisions: BTreeMap::new(),
            weights_source: None,
            data_source: None,
            hashes: Hashes { weights: "aa".into(), calib: "bb".into(), test: "cc".into() },
            status: Status::Done,
            error: None,
            metrics: Some(Metrics {
                fp_test_top1: 0.9276,
                test_top1: 0.8,
                calib_top1: 0.85,
                test_images: 2,
                skipped_images: 0,
                skipped_calib_images: 0,
            }),
            cost: Cost { wall_s: 1.0, cpu_s: 2.0, peak_memory_bytes: Some(3) },
            provenance: Provenance {
                device: "cpu".into(),
                processor: Some("one (AVX2)".into()),
                threads: 2,
                eval_batch: 250,
                grid: "x.toml".into(),
                crate_version: "0.1.0".into(),
                git_revision: "0123456789".into(),
                started_unix_s: 0,
            },
            preprocess: None,
        }
    }

    /// The same, failed.
    pub fn failed(mut self, error: &str) -> Self {
        (self.status, self.error, self.metrics) = (Status::Failed, Some(error.into()), None);
        self
    }

    /// The same as it may lie in a store: under its own id, with accuracies that are fractions of its images.
    pub fn storable(mut self) -> Self {
        self.run_id = crate::experiment::RunId::new(&self.cell, &self.hashes, &self.made_with()).to_string();
        self.metrics = self.metrics.map(|metrics| Metrics { test_images: 10_000, ..metrics });
        self
    }

    /// The same with these accuracies.
    pub fn with_top1(mut self, test_top1: f64, calib_top1: f64) -> Self {
        self.metrics = self.metrics.map(|metrics| Metrics { test_top1, calib_top1, ..metrics });
        self
    }
}
