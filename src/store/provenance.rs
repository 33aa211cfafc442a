//! Where this binary comes from and runs.

use super::processor;
use super::record::Provenance;
use super::time::since_1970;

impl Provenance {
    /// A run that starts now in this process.
    pub fn now(device: &str, threads: usize, eval_batch: usize, grid: &str) -> Self {
        Self {
            device: device.to_string(),
            processor: Some(processor::describe_with(device)),
            threads,
            eval_batch,
            grid: grid.to_string(),
            crate_version: env!("CARGO_PKG_VERSION").to_string(),
            git_revision: env!("HARNESS_GIT_REVISION").to_string(),
            started_unix_s: since_1970().as_secs(),
        }
    }
}
