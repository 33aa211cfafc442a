//! The cells of a plan, one after the other; each leaves a record, whatever becomes of it.

use super::inputs::{Inputs, Loader};
use super::log::CellLog;
use super::run_cell::{Caches, CellResult, run_cell};
use super::usage::Stopwatch;
use crate::error::{Error, Result};
use crate::experiment::{Cell, RunId};
use crate::methods;
use crate::recon::event::{Control, Event};
use crate::store::record::{FORMAT, Hashes, Provenance, Record, Status, UnitTrace};
use crate::store::{Artefacts, Store};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;

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
    pub provenance: &'a dyn Fn() -> Provenance,
    pub observe: &'a (dyn Fn(GridEvent) + Sync),
    pub cancelled: &'a AtomicBool,
}

/// Runs `cells` in order and stores a record of each.
///
/// A cell that fails, or panics, is recorded and the others go on. Errors: only where going on is pointless, that is,
/// when a record cannot be stored.
pub fn run_grid(cells: &[(RunId, Cell, Hashes)], loader: &mut Loader, launch: &Launch) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for (position, (id, cell, hashes)) in cells.iter().enumerate() {
        (launch.observe)(GridEvent::Started { position, count: cells.len(), id });
        let provenance = (launch.provenance)();
        let watch = Stopwatch::start();
        let log = CellLog::start(id);
        let observe = |event: Event| {
            log.note(&event);
            (launch.observe)(GridEvent::Cell(event));
        };
        let control = Control { observe: &observe, cancelled: launch.cancelled };
        let mut traces = Vec::new();
        let result =
            loader.inputs(cell).and_then(|inputs| run_caught(cell, &inputs, launch.caches, &control, &mut traces));
        if matches!(result, Err(Error::Interrupted)) {
            outcome.left = cells.len() - position;
            return Ok(outcome);
        }
        let (result, error) = match result {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let record = Record {
            format: FORMAT,
            run_id: id.to_string(),
            experiment: launch.experiment.to_string(),
            cell: cell.clone(),
            method_revision: methods::find(&cell.method).map_or(0, |method| method.revision),
            hashes: hashes.clone(),
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
        match record.status {
            Status::Done => outcome.done += 1,
            Status::Failed => outcome.failed += 1,
        }
        (launch.observe)(GridEvent::Finished { record: &record });
    }
    Ok(outcome)
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
