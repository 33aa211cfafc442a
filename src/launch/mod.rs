//! Running cells: one, and all that a plan has left.

mod evaluate;
mod gate;
mod grid;
mod inputs;
mod jobs;
mod log;
mod memory;
mod publish;
mod ranges;
mod run_cell;
mod transform;
mod usage;

pub use evaluate::{EVAL_BATCH, Evaluation, eval_batch, evaluate, predict, top1};
pub use gate::{FullPrecisionCache, check_folding};
pub use grid::{GridEvent, Launch, Outcome, Worker, run_grid};
pub use inputs::{Inputs, Loader};
pub use jobs::{Jobs, fastest as fastest_jobs, thread_pools};
pub use memory::Footprint;
pub use publish::Publisher;
pub use ranges::RangeCache;
pub use run_cell::{Caches, CellResult, run_cell};
pub use transform::TransformCache;
pub use usage::{Stopwatch, sensible_bytes_on, sensible_memory_bytes};
