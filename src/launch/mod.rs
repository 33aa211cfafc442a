//! Running cells: one, and all that a plan has left.

mod evaluate;
mod gate;
mod grid;
mod inputs;
mod run_cell;
mod transform;
mod usage;

pub use evaluate::{EVAL_BATCH, predict, top1};
pub use gate::{FullPrecisionCache, check_folding};
pub use grid::{GridEvent, Launch, Outcome, run_grid, run_grid_on};
pub use inputs::{Inputs, Loader};
pub use run_cell::{Caches, CellResult, run_cell};
pub use transform::TransformCache;
pub use usage::Stopwatch;
