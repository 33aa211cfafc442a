//! The cells of a plan: every run that a launcher makes of them is stored, whatever became of it.

use super::launcher::{Launcher, Watch};
use super::message::{Event, Job, What};
use crate::error::Result;
use crate::store::record::Status;
use crate::store::{Run, Store};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How a grid ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub done: usize,
    pub failed: usize,
    /// Cells not run because of an interruption, or since no device is left.
    pub left: usize,
    pub is_interrupted: bool,
}

/// Has `launcher` run `jobs`, stores each run, and tells `observe` the events of all.
///
/// A cell that fails, or panics, is recorded and the others go on. Errors: only where going on is pointless, that is,
/// when a record cannot be stored.
pub fn run_grid(
    jobs: &[Job],
    launcher: &mut dyn Launcher,
    store: &Store,
    observe: &(dyn Fn(&Event) + Sync),
    cancelled: &AtomicBool,
) -> Result<Outcome> {
    let (done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let keep = |Run { record, artefacts }: Run| {
        store.write_run(&record, &record.cell.to_toml()?, &artefacts)?;
        let count = if record.status == Status::Done { &done } else { &failed };
        count.fetch_add(1, Ordering::Relaxed);
        observe(&Event { run_id: record.run_id.clone(), what: What::Finished(Box::new(record)) });
        Ok(())
    };
    launcher.launch(jobs, &Watch { event: &|event| observe(&event), run: &keep, cancelled })?;
    let (done, failed) = (done.into_inner(), failed.into_inner());
    let is_interrupted = cancelled.load(Ordering::Relaxed);
    Ok(Outcome { done, failed, left: jobs.len() - done - failed, is_interrupted })
}
