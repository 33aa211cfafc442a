//! The cells of a plan: every run that a launcher makes of them is stored, whatever became of it.

use super::launcher::{Launcher, Watch};
use super::message::{Event, Job, What};
use crate::error::Result;
use crate::store::claims::{Asked, Claims};
use crate::store::record::{Record, Status};
use crate::store::{Run, Store};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks at whether a run that another process has is done, or that process dead.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
/// Other processes may work on the same store: each run is made by one of them, and this returns when all are over, whoever made them. A
/// cell that fails, or panics, is recorded and the others go on, until as many as `patience` says have failed one after the other: a
/// sick machine would fail them all. Errors: only where going on is pointless, that is, when a record cannot be stored.
pub fn run_grid(
    jobs: &[Job],
    launcher: &mut dyn Launcher,
    store: &Store,
    observe: &(dyn Fn(&Event) + Sync),
    (cancelled, patience): (&AtomicBool, Option<NonZeroUsize>),
) -> Result<Outcome> {
    let grid = Grid {
        store,
        claims: store.claims()?,
        before: jobs.iter().map(|job| (job.run_id.clone(), store.record(&job.run_id).as_ref().map(made))).collect(),
        observe,
        cancelled,
        patience,
        done: AtomicUsize::new(0),
        failed: AtomicUsize::new(0),
        in_a_row: AtomicUsize::new(0),
        gave_up: AtomicBool::new(false),
        elsewhere: Mutex::default(),
    };
    let (claim, keep) = (|job: &Job| grid.claim(&job.run_id), |run: Run| grid.keep(run));
    let watch = Watch { claim: &claim, event: &|event| observe(&event), run: &keep, cancelled };
    let (mut rest, mut told) = (jobs.to_vec(), HashSet::new());
    while !rest.is_empty() {
        launcher.launch(&rest, &watch)?;
        let elsewhere = std::mem::take(&mut *grid.elsewhere());
        rest.retain(|job| elsewhere.contains_key(&job.run_id));
        for (run_id, what) in elsewhere {
            if told.insert(run_id.clone()) {
                observe(&Event { run_id, what });
            }
        }
        if rest.is_empty() || watch.is_cancelled_within(LOOK_EVERY) {
            break;
        }
    }
    let (done, failed) = (grid.done.into_inner(), grid.failed.into_inner());
    let (is_interrupted, gave_up) = (cancelled.load(Ordering::Relaxed), grid.gave_up.into_inner());
    Ok(Outcome { done, failed, left: jobs.len() - done - failed, is_interrupted, gave_up })
}

/// What tells a run from an earlier one of its id.
type Made = (Status, u64, String);

fn made(record: &Record) -> Made {
    (record.status, record.provenance.started_unix_s, record.provenance.device.clone())
}

/// What the workers of a grid share.
struct Grid<'a> {
    store: &'a Store,
    claims: Claims,
    /// What was stored of each job at the beginning.
    before: HashMap<String, Option<Made>>,
    observe: &'a (dyn Fn(&Event) + Sync),
    cancelled: &'a AtomicBool,
    patience: Option<NonZeroUsize>,
    done: AtomicUsize,
    failed: AtomicUsize,
    in_a_row: AtomicUsize,
    gave_up: AtomicBool,
    /// Runs that other processes have, and what to say of them.
    elsewhere: Mutex<HashMap<String, What>>,
}

impl Grid<'_> {
    /// Whether run `run_id` is this process's to make, or to store.
    fn claim(&self, run_id: &str) -> Result<bool> {
        if self.is_over(run_id) {
            return Ok(false);
        }
        match self.claims.ask(run_id)? {
            Asked::Owned(owner) => {
                let what = What::Elsewhere { host: owner.host, process: owner.process };
                self.elsewhere().insert(run_id.to_string(), what);
                Ok(false)
            }
            // Its owner may have stored it after the look and before the claim.
            Asked::Granted if self.is_over(run_id) => {
                self.claims.release(run_id);
                Ok(false)
            }
            Asked::Granted => Ok(true),
        }
    }

    /// Whether another process has stored the run since this one began; it counts then.
    fn is_over(&self, run_id: &str) -> bool {
        let Some(record) = self.store.record(run_id) else { return false };
        let is_new = self.before.get(run_id) != Some(&Some(made(&record)));
        if is_new {
            self.count(record);
        }
        is_new
    }

    /// Stores a run. One that another process has taken over meanwhile, since this one stood still for too long, is dropped whole.
    fn keep(&self, Run { record, artefacts }: Run) -> Result<()> {
        if !self.claim(&record.run_id)? {
            return Ok(());
        }
        self.store.write_run(&record, &record.cell.to_toml()?, &artefacts)?;
        if record.status == Status::Done {
            self.store.remove_partial(&record.run_id);
        }
        self.claims.release(&record.run_id);
        self.count(record);
        Ok(())
    }

    fn count(&self, record: Record) {
        let is_done = record.status == Status::Done;
        if is_done {
            self.in_a_row.store(0, Ordering::Relaxed);
        } else if self.patience.is_some_and(|most| self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= most.get()) {
            self.gave_up.store(true, Ordering::Relaxed);
            self.cancelled.store(true, Ordering::Relaxed);
        }
        let count = if is_done { &self.done } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        (self.observe)(&Event { run_id: record.run_id.clone(), what: What::Finished(Box::new(record)) });
    }

    /// What a panicking thread left in it is still a map.
    fn elsewhere(&self) -> MutexGuard<'_, HashMap<String, What>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
