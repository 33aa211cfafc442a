//! What is kept of one run.

use crate::experiment::Cell;
use serde::{Deserialize, Serialize};

/// Version of [`Record`]'s JSON. 1: first.
pub const FORMAT: u32 = 1;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Done,
    Failed,
}

/// SHA-256 of everything outside the cell that determines a result, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    pub weights: String,
    /// Of the indices of the calibration images and the images themselves.
    pub calib: String,
    pub test: String,
}

/// What was measured; accuracies are fractions, not percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Full-precision top-1 on the test set.
    pub fp_test_top1: f64,
    /// Quantized top-1 on the test set.
    pub test_top1: f64,
    /// Quantized top-1 on the calibration images.
    pub calib_top1: f64,
    pub test_images: usize,
}

/// What a run cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub wall_s: f64,
    /// Processor time over all threads.
    pub cpu_s: f64,
    /// Peak resident memory of the process during the run, where the system tells.
    pub peak_memory_bytes: Option<u64>,
}

/// Where a run was made: recorded, not part of its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    pub device: String,
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
    pub hashes: Hashes,
    pub status: Status,
    /// Why it failed; `None` for [`Status::Done`].
    pub error: Option<String>,
    /// `None` unless [`Status::Done`].
    pub metrics: Option<Metrics>,
    pub cost: Cost,
    pub provenance: Provenance,
}

/// The losses of one unit while it was reconstructed, sampled every few iterations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitTrace {
    pub unit: String,
    /// `weights`, or `activations` for a second phase.
    pub phase: String,
    pub iterations: Vec<usize>,
    /// Reconstruction error without the regulariser.
    pub loss: Vec<f64>,
    /// Weighted rounding regulariser.
    pub regulariser: Vec<f64>,
    pub wall_s: f64,
}
