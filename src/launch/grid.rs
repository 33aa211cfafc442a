//! The cells of a plan: every run that a launcher makes of them is stored, whatever became of it.

use super::launcher::{Launcher, Watch};
use super::message::{Event, Job, What};
use crate::error::Result;
use crate::store::claims::{Asked, Claims, Owner};
use crate::store::record::{Record, Status};
use crate::store::{Run, Store};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at whether a run that another process has is done, or that process dead.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a grid ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub done: usize,
    pub failed: usize,
    /// Cells that failed here, and not in another process.
    pub failed_here: usize,
    /// Cells that are not over: because of an interruption, since no device is left, or since other processes have them.
    pub left: usize,
    /// Those of them that other processes have.
    pub elsewhere: usize,
    pub is_interrupted: bool,
    /// So many cells failed one after the other that the rest was left.
    pub gave_up: bool,
}

/// What becomes of runs that other processes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// This waits until they are over, and takes them over from whoever dies.
    Await,
    /// They are left, as soon as whoever has them is known to live.
    Leave,
}

/// Has `launcher` run `jobs`, stores each run, and tells `observe` the events of all.
///
/// Other processes may work on the same store: each run is made by one of them, and what this does about theirs `others` says. A
/// cell that fails, or panics, is recorded and the others go on, until as many as `patience` says have failed one after the other: a
/// sick machine would fail them all. Errors: only where going on is pointless, that is, when a record cannot be stored.
pub fn run_grid(
    jobs: &[Job],
    launcher: &mut dyn Launcher,
    store: &Store,
    observe: &(dyn Fn(&Event) + Sync),
    (cancelled, patience): (&AtomicBool, Option<NonZeroUsize>),
    others: Others,
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
        failed_here: AtomicUsize::new(0),
        granted: AtomicUsize::new(0),
        in_a_row: AtomicUsize::new(0),
        gave_up: AtomicBool::new(false),
        elsewhere: Mutex::default(),
    };
    let (claim, keep) = (|job: &Job| grid.claim(&job.run_id, Claims::ask), |run: Run| grid.keep(run));
    let watch = Watch { claim: &claim, event: &|event| observe(&event), run: &keep, cancelled };
    let (mut rest, mut told, mut idle_since) = (jobs.to_vec(), HashSet::new(), Instant::now());
    while !rest.is_empty() {
        let granted = grid.granted.load(Ordering::Relaxed);
        launcher.launch(&rest, &watch)?;
        let was_idle = grid.granted.load(Ordering::Relaxed) == granted;
        if !was_idle {
            idle_since = Instant::now();
        }
        let elsewhere = std::mem::take(&mut *grid.elsewhere());
        rest.retain(|job| elsewhere.contains_key(&job.run_id));
        // What was heard before the last cell was made is old.
        let are_left = others == Others::Leave
            && was_idle
            && (idle_since.elapsed() > Claims::KNOWN_AFTER
                || elsewhere.values().all(|of| grid.claims.knows_at_once(of)));
        for (run_id, Owner { host, process, .. }) in elsewhere {
            if told.insert(run_id.clone()) && others == Others::Await {
                observe(&Event { run_id, what: What::Elsewhere { host, process } });
            }
        }
        if are_left || rest.is_empty() || watch.is_cancelled_within(LOOK_EVERY) {
            break;
        }
    }
    let [done, failed, failed_here] = [grid.done, grid.failed, grid.failed_here].map(AtomicUsize::into_inner);
    let (is_interrupted, gave_up) = (cancelled.load(Ordering::Relaxed), grid.gave_up.into_inner());
    let (left, elsewhere) = (jobs.len() - done - failed, rest.len());
    Ok(Outcome { done, failed, failed_here, left, elsewhere, is_interrupted, gave_up })
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
    failed_here: AtomicUsize,
    /// How often a run was this process's to make.
    granted: AtomicUsize,
    in_a_row: AtomicUsize,
    gave_up: AtomicBool,
    /// Runs that other processes have.
    elsewhere: Mutex<HashMap<String, Owner>>,
}

impl Grid<'_> {
    /// Whether run `run_id` is this process's to make, or to store, as `ask` says.
    fn claim(&self, run_id: &str, ask: fn(&Claims, &str) -> Result<Asked>) -> Result<bool> {
        if self.is_over(run_id) {
            return Ok(false);
        }
        match ask(&self.claims, run_id)? {
            Asked::Owned(owner) => {
                self.elsewhere().insert(run_id.to_string(), owner);
                Ok(false)
            }
            // Its owner may have stored it after the look and before the claim.
            Asked::Granted if self.is_over_now(run_id)? => {
                self.claims.release(run_id);
                Ok(false)
            }
            Asked::Granted => {
                self.granted.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
        }
    }

    /// The same as [`is_over`](Self::is_over), whatever this machine remembers of a folder on another.
    fn is_over_now(&self, run_id: &str) -> Result<bool> {
        self.store.look_anew()?;
        Ok(self.is_over(run_id))
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
        if !self.claim(&record.run_id, Claims::ask_again)? {
            return Ok(());
        }
        self.store.write_run(&record, &record.cell.to_toml()?, &artefacts)?;
        if record.status == Status::Done {
            self.store.remove_partial(&record.run_id);
        }
        self.claims.release(&record.run_id);
        self.failed_here.fetch_add(usize::from(record.status == Status::Failed), Ordering::Relaxed);
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
    fn elsewhere(&self) -> MutexGuard<'_, HashMap<String, Owner>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
