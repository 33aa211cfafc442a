//! Tells other processes how far the grid is, about once per second.

use super::GridEvent;
use crate::error::Result;
use crate::store::Store;
use crate::store::live::{Current, LIVE_FORMAT, Live, LiveUnit};
use crate::store::record::Status;
use ptq::recon::event::Event;
use ptq::recon::trace::UnitTrace;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two writings of the state.
const PERIOD: Duration = Duration::from_secs(1);

/// Follows the events of a grid. A thread of its own writes, so that no computation waits for a disk.
pub struct Publisher {
    state: Mutex<State>,
    /// The end of the grid.
    ended: Condvar,
}

struct State {
    live: Live,
    changed: bool,
    ended: bool,
}

impl Publisher {
    /// For a grid with `pending` cells to run and `stored` ones already there.
    pub fn new(pending: usize, stored: usize) -> Self {
        let now = now_unix_s();
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
        };
        Self { state: Mutex::new(State { live, changed: true, ended: false }), ended: Condvar::new() }
    }

    /// Runs `grid` while a thread publishes to `store` what [`Publisher::note`] is told, and takes it back at the end.
    /// Beside the result of `grid`, why publishing failed, if it did: no reason to lose a night's work.
    pub fn during<T>(&self, store: &Store, grid: impl FnOnce() -> T) -> (T, Result<()>) {
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| self.write(store));
            let end = End(self);
            let result = grid();
            drop(end);
            let written = writer.join().unwrap_or(Ok(()));
            (result, written.and(store.remove_live()))
        })
    }

    /// Takes notice of an event.
    pub fn note(&self, event: &GridEvent) {
        let mut state = self.lock();
        state.changed = true;
        let live = &mut state.live;
        match event {
            GridEvent::Started { id, .. } => {
                live.current =
                    Some(Current { run_id: id.to_string(), started_unix_s: now_unix_s(), ..Current::default() });
            }
            GridEvent::Cell(event) => {
                if let Some(current) = &mut live.current {
                    current.note(event);
                }
            }
            GridEvent::Finished { record } => {
                live.current = None;
                match record.status {
                    Status::Done => live.done += 1,
                    Status::Failed => live.failed += 1,
                }
            }
        }
    }

    /// Writes until the end, or until it cannot.
    fn write(&self, store: &Store) -> Result<()> {
        let mut state = self.lock();
        while !state.ended {
            let changed = std::mem::take(&mut state.changed).then(|| {
                state.live.updated_unix_s = now_unix_s();
                state.live.clone()
            });
            drop(state);
            if let Some(live) = changed {
                store.write_live(&live)?;
            }
            let guard = self.lock();
            let waited = self.ended.wait_timeout_while(guard, PERIOD, |state| !state.ended);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// What a panicking thread left in it is still a state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the writing thread, whatever becomes of the grid: a scope waits for its threads.
struct End<'a>(&'a Publisher);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.ended.notify_all();
    }
}

impl Current {
    fn note(&mut self, event: &Event) {
        match *event {
            Event::Unit { index, count, name } => {
                self.unit_count = count;
                self.evaluated = None;
                self.forget_curve();
                self.units.push(LiveUnit { index, name: name.to_string(), ..LiveUnit::default() });
            }
            Event::Step { phase, iteration, iterations, loss } => {
                self.evaluated = None;
                let is_new = self.units.last().is_none_or(|unit| !unit.phase.is_empty() && unit.phase != phase);
                if is_new {
                    self.forget_curve();
                    let (index, name) =
                        self.units.last().map(|unit| (unit.index, unit.name.clone())).unwrap_or_default();
                    self.units.push(LiveUnit { index, name, ..LiveUnit::default() });
                }
                let loss = Some(loss).filter(|loss| loss.is_finite());
                let Some(unit) = self.units.last_mut() else { return };
                if iteration == 1 {
                    (unit.first_loss, unit.curve) = (loss, Vec::new());
                }
                if unit.phase.is_empty() {
                    unit.phase = phase.to_string();
                }
                (unit.iteration, unit.iterations, unit.loss) = (iteration, iterations, loss);
                if UnitTrace::is_due(iteration, iterations) {
                    unit.curve.push((iteration, loss));
                }
            }
            Event::Evaluated { images, of } => self.evaluated = Some((images, of)),
            Event::Halved { .. } | Event::Skipped { .. } => {}
        }
    }

    /// Only the current curve is worth its bytes every second.
    fn forget_curve(&mut self) {
        if let Some(unit) = self.units.last_mut() {
            unit.curve = Vec::new();
        }
    }
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::RunId;
    use crate::store::record::Record;

    fn step(iteration: usize, phase: &'static str, loss: f64) -> GridEvent<'static> {
        GridEvent::Cell(Event::Step { phase, iteration, iterations: 2, loss })
    }

    #[test]
    fn what_happens_is_published_and_taken_back() {
        let results = tempfile::tempdir().unwrap();
        let store = Store::new(results.path(), "x");
        let _lock = store.lock().unwrap();
        let record = Record::sample("a", "qdrop", "W2A4", 0).failed("why");
        let id = RunId::new(&record.cell, &record.hashes, &record.made_with());
        let publisher = Publisher::new(3, 4);
        let ((), written) = publisher.during(&store, || {
            publisher.note(&GridEvent::Started { position: 0, count: 3, id: &id });
            publisher.note(&GridEvent::Finished { record: &record });
            publisher.note(&GridEvent::Started { position: 1, count: 3, id: &id });
            publisher.note(&GridEvent::Cell(Event::Unit { index: 0, count: 9, name: "stem" }));
            [step(1, "meta", 4.0), step(2, "meta", 3.0), step(1, "weights", 2.0)]
                .iter()
                .for_each(|e| publisher.note(e));
            publisher.note(&step(2, "weights", f64::NAN));
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
            let current = seen.current.unwrap();
            assert_eq!((current.run_id, current.unit_count), (id.to_string(), 9));
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
        let publisher = Publisher::new(1, 0);
        let (result, written) = publisher.during(&store, || 7);
        assert_eq!(result, 7);
        assert!(written.unwrap_err().to_string().contains(".live"));
    }
}
