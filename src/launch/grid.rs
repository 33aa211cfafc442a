//! The cells of a plan: every run that a launcher makes of them is stored, whatever became of it.

use super::launcher::{Launcher, Watch};
use super::message::{Event, Job, What};
use crate::error::Result;
use crate::store::record::Status;
use crate::store::{Run, Store};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How a grid ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub done: usize,
    pub failed: usize,
    /// Cells not run because of an interruption, or since no device is left.
    pub left: usize,
    pub is_interrupted: bool,
    /// So many cells failed one after the other that the rest was left.
    pub gave_up: bool,
}

/// Has `launcher` run `jobs`, stores each run, and tells `observe` the events of all.
///
/// A cell that fails, or panics, is recorded and the others go on, until as many as `patience` says have failed one after the other: a
/// sick machine would fail them all. Errors: only where going on is pointless, that is, when a record cannot be stored.
pub fn run_grid(
    jobs: &[Job],
    launcher: &mut dyn Launcher,
    store: &Store,
    observe: &(dyn Fn(&Event) + Sync),
    (cancelled, patience): (&AtomicBool, Option<NonZeroUsize>),
) -> Result<Outcome> {
    let (done, failed, in_a_row) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let gave_up = AtomicBool::new(false);
    let keep = |Run { record, artefacts }: Run| {
        store.write_run(&record, &record.cell.to_toml()?, &artefacts)?;
        let count = if record.status == Status::Done { &done } else { &failed };
        if record.status == Status::Done {
            store.remove_partial(&record.run_id);
            in_a_row.store(0, Ordering::Relaxed);
        } else if patience.is_some_and(|most| in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= most.get()) {
            gave_up.store(true, Ordering::Relaxed);
            cancelled.store(true, Ordering::Relaxed);
        }
        count.fetch_add(1, Ordering::Relaxed);
        observe(&Event { run_id: record.run_id.clone(), what: What::Finished(Box::new(record)) });
        Ok(())
    };
    launcher.launch(jobs, &Watch { event: &|event| observe(&event), run: &keep, cancelled })?;
    let (done, failed) = (done.into_inner(), failed.into_inner());
    let (is_interrupted, gave_up) = (cancelled.load(Ordering::Relaxed), gave_up.into_inner());
    Ok(Outcome { done, failed, left: jobs.len() - done - failed, is_interrupted, gave_up })
}
