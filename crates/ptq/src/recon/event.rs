//! What reconstruction tells the outside while it runs, and how the outside stops it.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// Something happened in the current cell.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A unit comes next.
    Unit { index: usize, count: usize, name: &'a str },
    /// One step of the current unit was made.
    Step { phase: &'static str, iteration: usize, iterations: usize, loss: f64 },
    /// Evaluation has come this far.
    Evaluated { images: usize, of: usize },
    /// The device has no memory for more than so many images at a time.
    Halved { images: usize },
    /// An image cannot be decoded and is left out.
    Skipped { problem: &'a str },
}

/// Ties a computation to whoever watches it.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    pub observe: &'a (dyn Fn(Event) + Sync),
    /// Set to stop at the next opportunity.
    pub cancelled: &'a AtomicBool,
}

impl Control<'_> {
    pub fn unit(&self, index: usize, count: usize, name: &str) {
        (self.observe)(Event::Unit { index, count, name });
    }

    /// [`Error::Interrupted`] once cancelled.
    pub fn check(&self) -> Result<()> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}
