//! What launchers have in common: a launcher takes jobs, and tells events and runs.

use super::message::{Event, Job};
use crate::error::{Error, Result};
use crate::store::Run;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at whether the user wants to stop.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Ties a launch to whoever asked for it. Calls come from several threads.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Asks for a job that is about to begin: it is left to whoever has it where this is `false`. Errors: going on is pointless.
    pub claim: &'a (dyn Fn(&Job) -> Result<bool> + Sync),
    pub event: &'a (dyn Fn(Event) + Sync),
    /// Takes a run that has ended. Errors: it cannot be kept, so that going on is pointless.
    pub run: &'a (dyn Fn(Run) -> Result<()> + Sync),
    /// Set to stop at the next opportunity.
    pub cancelled: &'a AtomicBool,
}

impl Watch<'_> {
    /// Waits so long, or until the user wants to stop; whether that is so.
    pub(super) fn is_cancelled_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.cancelled.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Makes runs of jobs, wherever that may be.
pub trait Launcher {
    /// Has the jobs that can be claimed run, begun in their order, and tells `watch` the events of each and how it ended; nothing of the end of those that
    /// a cancellation leaves.
    ///
    /// A run that fails, whatever the way, is a run. Errors: only where going on is pointless.
    fn launch(&mut self, jobs: &[Job], watch: &Watch) -> Result<()>;
}

/// Gives `work` the next of `jobs` whenever a worker is free, until there are no more, an error, or a cancellation. A worker whose
/// `work` is `false`, since it was interrupted or its device is dead, gets no other.
pub(super) fn share<Worker: Send>(
    jobs: &[Job],
    workers: &mut [Worker],
    watch: &Watch,
    work: impl Fn(&mut Worker, &Job) -> Result<bool> + Sync,
) -> Result<()> {
    let (next, is_pointless) = (AtomicUsize::new(0), AtomicBool::new(false));
    let take = |worker: &mut Worker| -> Result<()> {
        while !is_pointless.load(Ordering::Relaxed) {
            let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let mut has = || if (watch.claim)(job)? { work(worker, job) } else { Ok(true) };
            let goes_on = has().inspect_err(|_| is_pointless.store(true, Ordering::Relaxed))?;
            if !goes_on || watch.cancelled.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    };
    // A single one computes on the thread that asks: nothing changes for it.
    match workers {
        [worker] => take(worker),
        workers => std::thread::scope(|scope| {
            let threads: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(|| take(worker))).collect();
            let panicked = |_| Err(Error::Panicked("between two cells".to_string()));
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect();
            ended.into_iter().collect()
        }),
    }
}
