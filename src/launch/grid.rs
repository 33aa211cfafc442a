//! The cells of a plan, one after the other by each worker; each leaves a record, whatever becomes of it.

use super::inputs::{Inputs, Loader};
use super::log::CellLog;
use super::run_cell::{Caches, CellResult, run_cell};
use super::usage::Stopwatch;
use crate::error::{Error, Result};
use crate::experiment::Hashes;
use crate::experiment::{Cell, Revisions, RunId};
use crate::store::record::{FORMAT, Provenance, Record, Status};
use crate::store::{Artefacts, Store};
use ptq::recon::event::{Control, Event};
use ptq::recon::trace::UnitTrace;
use rayon::ThreadPool;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tracing::info_span;

/// Something happened in the grid.
pub enum GridEvent<'a> {
    /// Cell `position` (from 0) of `count` begins.
    Started {
        position: usize,
        count: usize,
        id: &'a RunId,
    },
    Cell(Event<'a>),
    Finished {
        record: &'a Record,
    },
}

/// How a grid ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub done: usize,
    pub failed: usize,
    /// Cells not run because of an interruption.
    pub left: usize,
}

/// What all runs of a grid share.
pub struct Launch<'a> {
    pub store: &'a Store,
    pub caches: &'a Caches,
    pub experiment: &'a str,
    /// Of a run that starts now on the device of this name.
    pub provenance: &'a (dyn Fn(&str) -> Provenance + Sync),
    pub observe: &'a (dyn Fn(GridEvent) + Sync),
    pub cancelled: &'a AtomicBool,
}

/// One of those that run cells at the same time.
pub struct Worker<'a> {
    /// Of the device that it computes on.
    pub loader: &'a mut Loader,
    /// Threads of its own; `None`: those of the process.
    pub threads: Option<ThreadPool>,
}

impl<'a> Worker<'a> {
    /// Computes with all threads of the process.
    pub fn with_all_threads(loader: &'a mut Loader) -> Self {
        Self { loader, threads: None }
    }
}

/// Runs `cells` in order and stores a record of each; every worker takes the next cell when it has finished one.
///
/// Results do not depend on the number of workers or of their threads.
///
/// A cell that fails, or panics, is recorded and the others go on. Errors: only where going on is pointless, that is,
/// when a record cannot be stored.
pub fn run_grid(cells: &[(RunId, Cell, Hashes)], mut workers: Vec<Worker>, launch: &Launch) -> Result<Outcome> {
    let (next, pointless) = (AtomicUsize::new(0), AtomicBool::new(false));
    let are_several = workers.len() > 1;
    let work = |worker: &mut Worker| -> Result<Outcome> {
        let Worker { loader, threads } = worker;
        let mut outcome = Outcome::default();
        while !pointless.load(Ordering::Relaxed) {
            let position = next.fetch_add(1, Ordering::Relaxed);
            if position >= cells.len() {
                break;
            }
            let mut run = || run_one(cells, position, loader, launch, are_several);
            let status = match threads {
                Some(threads) => threads.install(run),
                None => run(),
            };
            match status.inspect_err(|_| pointless.store(true, Ordering::Relaxed))? {
                Some(Status::Done) => outcome.done += 1,
                Some(Status::Failed) => outcome.failed += 1,
                None => break,
            }
        }
        Ok(outcome)
    };
    // A single one computes on the thread that asks: nothing changes for it.
    let ended: Vec<Result<Outcome>> = match workers.as_mut_slice() {
        [worker] => vec![work(worker)],
        workers => std::thread::scope(|scope| {
            let threads: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(|| work(worker))).collect();
            let panicked = |_| Err(Error::Panicked("between two cells".to_string()));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        }),
    };
    let mut outcome = Outcome::default();
    for of_worker in ended {
        let of_worker = of_worker?;
        outcome.done += of_worker.done;
        outcome.failed += of_worker.failed;
    }
    outcome.left = cells.len() - outcome.done - outcome.failed;
    Ok(outcome)
}

/// Runs one cell, beside others if so, and stores its record; `None` if it was interrupted.
fn run_one(
    cells: &[(RunId, Cell, Hashes)],
    position: usize,
    loader: &mut Loader,
    launch: &Launch,
    is_beside_others: bool,
) -> Result<Option<Status>> {
    let (id, cell, hashes) = &cells[position];
    let _span = info_span!("cell", name = %id).entered();
    (launch.observe)(GridEvent::Started { position, count: cells.len(), id });
    let provenance = (launch.provenance)(&loader.device_name());
    let watch = if is_beside_others { Stopwatch::beside_others() } else { Stopwatch::start() };
    let log = CellLog::start(id);
    let observe = |event: Event| {
        log.note(&event);
        (launch.observe)(GridEvent::Cell(event));
    };
    let control = Control { observe: &observe, cancelled: launch.cancelled };
    let mut traces = Vec::new();
    let inputs = info_span!("inputs").in_scope(|| loader.inputs(cell));
    let result = inputs.and_then(|inputs| run_caught(cell, &inputs, launch.caches, &control, &mut traces));
    if matches!(result, Err(Error::Ptq(ptq::Error::Interrupted))) {
        return Ok(None);
    }
    let (result, error) = match result {
        Ok(result) => (Some(result), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let revisions = Revisions::of(cell);
    let record = Record {
        format: FORMAT,
        run_id: id.to_string(),
        experiment: launch.experiment.to_string(),
        cell: cell.clone(),
        method_revision: revisions.method,
        revisions: revisions.modules,
        hashes: hashes.clone(),
        weights_source: loader.weights_source(cell),
        status: if error.is_none() { Status::Done } else { Status::Failed },
        error,
        metrics: result.as_ref().map(|result| result.metrics.clone()),
        cost: watch.cost(),
        provenance,
        preprocess: result.as_ref().map(|result| result.preprocess.clone()),
    };
    let log = log.finish(&record);
    let artefacts = Artefacts {
        log: Some(&log),
        traces: &traces,
        predictions: result.as_ref().map(|result| &result.predictions),
        pictures: result.as_ref().and_then(|result| result.pictures.as_ref()),
    };
    launch.store.write_run(&record, &cell.to_toml()?, &artefacts)?;
    (launch.observe)(GridEvent::Finished { record: &record });
    Ok(Some(record.status))
}

/// A panic below is a bug, but one cell's bug: it must not end a night's sweep.
fn run_caught(
    cell: &Cell,
    inputs: &Inputs,
    caches: &Caches,
    control: &Control,
    traces: &mut Vec<UnitTrace>,
) -> Result<CellResult> {
    let run = AssertUnwindSafe(|| run_cell(cell, inputs, caches, control, traces));
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::Panicked(text.unwrap_or("no message").to_string()))
    })
}
