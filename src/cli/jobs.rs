//! How many cells a user wants at the same time.

use crate::error::{Error, Result};
use crate::experiment::Cell;
use crate::launch::{Jobs, Loader, fastest_jobs, guarded, sensible_memory_bytes};
use ptq::recon::event::Control;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

/// `--jobs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// As many as a measurement finds fastest, of those that fit into half of the free memory.
    Auto,
    Count(NonZeroUsize),
}

/// A number from 1 on, or `auto`.
pub fn parse(text: &str) -> Result<Wanted, String> {
    match text {
        "auto" => Ok(Wanted::Auto),
        _ => text.parse().map(Wanted::Count).map_err(|_| "it is a number from 1 on, or auto".to_string()),
    }
}

impl Wanted {
    /// How many of `pending` cells, the first of them `cell`, run at the same time; says what was measured unless `quiet`.
    ///
    /// Errors: Ctrl-C while it is measured.
    pub fn count(
        self,
        cell: Option<&Cell>,
        loader: &mut Loader,
        pending: usize,
        (cancelled, quiet): (&AtomicBool, bool),
    ) -> Result<usize> {
        let is_cpu = loader.device_name() == "cpu";
        match (self, cell) {
            (Wanted::Count(count), _) => Ok(count.get().min(pending).max(1)),
            (Wanted::Auto, Some(cell)) if is_cpu && pending > 1 && rayon::current_num_threads() > 1 => {
                match guarded(|| measured(cell, loader, pending, cancelled)) {
                    Ok(jobs) if jobs.count > 1 && !quiet => {
                        tell!("{} of {pending} cells at a time, {:.2} times as fast as one", jobs.count, jobs.speed);
                        Ok(jobs.count)
                    }
                    Ok(jobs) => Ok(jobs.count),
                    Err(Error::Ptq(ptq::Error::Interrupted)) => Err(Error::Ptq(ptq::Error::Interrupted)),
                    Err(error) => {
                        // The cell will say so in its record, and the others go on.
                        tell!("warning: one cell at a time, since nothing could be measured: {error}");
                        Ok(1)
                    }
                }
            }
            (Wanted::Auto, _) => Ok(1),
        }
    }
}

/// The fastest number of cells at the same time, of those that fit into half of the free memory.
fn measured(cell: &Cell, loader: &mut Loader, pending: usize, cancelled: &AtomicBool) -> Result<Jobs> {
    let free = sensible_memory_bytes();
    let fit = free.checked_div(loader.peak_bytes(cell, free)?).unwrap_or(1) as usize;
    let control = Control { observe: &|_| (), cancelled };
    fastest_jobs(cell, &loader.inputs(cell)?, pending.min(fit).max(1), &control)
}
