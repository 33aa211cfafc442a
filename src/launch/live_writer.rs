//! Tells other processes how far the grid is, about once per second.

use super::message::{Event, What};
use crate::error::Result;
use crate::store::live::{Current, LIVE_FORMAT, Live, LiveUnit};
use crate::store::record::Status;
use crate::store::{Store, since_1970};
use ptq::recon::event::Event as Progress;
use ptq::recon::trace::UnitTrace;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two writings of the state.
const PERIOD: Duration = Duration::from_secs(1);

/// Follows the events of a grid. A thread of its own writes, so that no computation waits for a disk.
pub struct LiveWriter {
    state: Mutex<State>,
    /// The end of the grid.
    ended: Condvar,
}

struct State {
    /// All but the running cells.
    live: Live,
    /// In the order in which they began.
    running: Vec<Current>,
    changed: bool,
    ended: bool,
}

impl LiveWriter {
    /// For a grid with `pending` cells to run and `stored` ones already there.
    pub fn new(pending: usize, stored: usize) -> Self {
        let now = since_1970().as_secs();
        let live = Live {
            format: LIVE_FORMAT,
            process: std::process::id(),
            started_unix_s: now,
            updated_unix_s: now,
            stored,
            pending,
            done: 0,
            failed: 0,
            current: None,
            beside: Vec::new(),
        };
        let state = State { live, running: Vec::new(), changed: true, ended: false };
        Self { state: Mutex::new(state), ended: Condvar::new() }
    }

    /// Runs `grid` while a thread publishes to `store` what [`LiveWriter::note`] is told, and takes it back at the end.
    /// Beside the result of `grid`, why publishing failed, if it did: no reason to lose a night's work.
    pub fn during<T>(&self, store: &Store, grid: impl FnOnce() -> T) -> (T, Result<()>) {
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| self.write(store));
            let end = End(self);
            let result = grid();
            drop(end);
            let written = writer.join().unwrap_or(Ok(()));
            (result, written)
        })
    }

    /// Takes notice of an event.
    pub fn note(&self, event: &Event) {
        let mut state = self.lock();
        state.changed = true;
        let State { live, running, .. } = &mut *state;
        match &event.what {
            What::Started => {
                let run_id = event.run_id.clone();
                running.push(Current { run_id, started_unix_s: since_1970().as_secs(), ..Current::default() });
            }
            What::Progress(progress) => {
                if let Some(current) = running.iter_mut().find(|current| current.run_id == event.run_id) {
                    current.note(progress);
                }
            }
            What::Elsewhere { .. } => {}
            What::Finished(record) => {
                running.retain(|current| current.run_id != event.run_id);
                match record.status {
                    Status::Done => live.done += 1,
                    Status::Failed => live.failed += 1,
                }
            }
        }
    }

    /// Writes until the end, or until it cannot.
    fn write(&self, store: &Store) -> Result<()> {
        let mut own = store.live_lock()?;
        let mut state = self.lock();
        while !state.ended {
            let changed = std::mem::take(&mut state.changed).then(|| {
                let mut running = state.running.iter().cloned();
                let (current, beside) = (running.next(), running.collect());
                Live { updated_unix_s: since_1970().as_secs(), current, beside, ..state.live.clone() }
            });
            drop(state);
            // Of several processes the first is followed, then the next.
            if own.is_none() {
                own = store.live_lock()?;
            }
            if let (Some(live), true) = (changed, own.is_some()) {
                store.write_live(&live)?;
            }
            let guard = self.lock();
            let waited = self.ended.wait_timeout_while(guard, PERIOD, |state| !state.ended);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // Before another process may write.
        if own.is_some() { store.remove_live() } else { Ok(()) }
    }

    /// What a panicking thread left in it is still a state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the writing thread, whatever becomes of the grid: a scope waits for its threads.
struct End<'a>(&'a LiveWriter);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.ended.notify_all();
    }
}

impl Current {
    fn note(&mut self, event: &Progress) {
        match event {
            Progress::Unit { index, count, name } => {
                self.unit_count = *count;
                self.evaluated = None;
                self.forget_curve();
                self.units.push(LiveUnit { index: *index, name: name.clone(), ..LiveUnit::default() });
            }
            Progress::Step { phase, iteration, iterations, loss } => {
                self.evaluated = None;
                let is_new = self.units.last().is_none_or(|unit| !unit.phase.is_empty() && unit.phase != *phase);
                if is_new {
                    self.forget_curve();
                    let (index, name) =
                        self.units.last().map(|unit| (unit.index, unit.name.clone())).unwrap_or_default();
                    self.units.push(LiveUnit { index, name, ..LiveUnit::default() });
                }
                let loss = Some(*loss).filter(|loss| loss.is_finite());
                let Some(unit) = self.units.last_mut() else { return };
                if *iteration == 1 {
                    (unit.first_loss, unit.curve) = (loss, Vec::new());
                }
                if unit.phase.is_empty() {
                    unit.phase.clone_from(phase);
                }
                (unit.iteration, unit.iterations, unit.loss) = (*iteration, *iterations, loss);
                if UnitTrace::is_due(*iteration, *iterations) {
                    unit.curve.push((*iteration, loss));
                }
            }
            Progress::Evaluated { images, of } => self.evaluated = Some((*images, *of)),
            Progress::PhaseBegun { .. }
            | Progress::Point(_)
            | Progress::PhaseEnded { .. }
            | Progress::Halved { .. }
            | Progress::Skipped { .. } => {}
        }
    }

    /// Only the current curve is worth its bytes every second.
    fn forget_curve(&mut self) {
        if let Some(unit) = self.units.last_mut() {
            unit.curve = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::Record;

    fn event(run_id: &str, what: What) -> Event {
        Event { run_id: run_id.into(), what }
    }

    fn step(run_id: &str, iteration: usize, phase: &str, loss: f64) -> Event {
        event(run_id, What::Progress(Progress::Step { phase: phase.into(), iteration, iterations: 2, loss }))
    }

    #[test]
    fn what_happens_is_published_and_taken_back() {
        let results = tempfile::tempdir().unwrap();
        let store = Store::new(results.path(), "x");
        let _lock = store.lock().unwrap();
        let record = Record::sample("a", "qdrop", "W2A4", 0).failed("why");
        let writer = LiveWriter::new(3, 4);
        let ((), written) = writer.during(&store, || {
            writer.note(&event("a", What::Started));
            writer.note(&event("b", What::Started));
            writer.note(&event("a", What::Finished(Box::new(record))));
            writer.note(&event("c", What::Started));
            let unit = Progress::Unit { index: 0, count: 9, name: "stem".into() };
            writer.note(&event("b", What::Progress(unit)));
            // Steps of cells at the same time come in any order.
            let steps =
                [("b", 1, "meta", 4.0), ("c", 1, "warm-up", 7.0), ("b", 2, "meta", 3.0), ("b", 1, "weights", 2.0)];
            for (id, iteration, phase, loss) in steps {
                writer.note(&step(id, iteration, phase, loss));
            }
            writer.note(&step("b", 2, "weights", f64::NAN));
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            let seen = loop {
                let live = store.live().filter(|live| live.current.as_ref().is_some_and(|c| c.units.len() == 2));
                match live {
                    Some(live) => break live,
                    None if std::time::Instant::now() > deadline => panic!("nothing was published"),
                    None => std::thread::sleep(Duration::from_millis(20)),
                }
            };
            assert_eq!((seen.pending, seen.stored, seen.done, seen.failed), (3, 4, 0, 1));
            assert_eq!(seen.running().map(|current| current.run_id.as_str()).collect::<Vec<_>>(), ["b", "c"]);
            assert_eq!((seen.beside[0].units[0].phase.as_str(), seen.beside[0].units[0].loss), ("warm-up", Some(7.0)));
            let current = seen.current.unwrap();
            assert_eq!(current.unit_count, 9);
            assert_eq!((current.units[0].phase.as_str(), current.units[0].first_loss), ("meta", Some(4.0)));
            assert!(current.units[0].curve.is_empty());
            assert_eq!(current.units[1].curve, [(1, Some(2.0)), (2, None)]);
        });
        written.unwrap();
        assert_eq!(store.live(), None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told_and_does_not_stop_the_grid() {
        let results = tempfile::tempdir().unwrap();
        let store = Store::new(results.path(), "x");
        let _lock = store.lock().unwrap();
        std::fs::write(results.path().join("x/runs/.live"), "a file").unwrap();
        let writer = LiveWriter::new(1, 0);
        let (result, written) = writer.during(&store, || 7);
        assert_eq!(result, 7);
        assert!(written.unwrap_err().to_string().contains(".live"));
    }
}
