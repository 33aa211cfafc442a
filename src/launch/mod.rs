//! Running cells: one, and all that a plan has left.

mod evaluate;
mod gate;
mod grid;
mod in_process;
mod inputs;
mod isolated;
mod jobs;
mod launcher;
mod live_writer;
mod log;
mod memory;
mod message;
mod notes;
mod partial;
mod ranges;
mod run_cell;
mod transform;
mod transformed;
mod usage;

pub use evaluate::{EVAL_BATCH, Evaluation, eval_batch, evaluate, predict, top1};
pub use gate::{FullPrecisionCache, check_folding};
pub use grid::{Others, Outcome, run_grid};
pub use in_process::{InProcess, Worker, guarded};
pub use inputs::{Inputs, Loader, device_name};
pub use isolated::{Isolated, Place};
pub use jobs::{Jobs, fastest as fastest_jobs, thread_counts, thread_pools};
pub use launcher::{Launcher, Watch};
pub use live_writer::LiveWriter;
pub use memory::Footprint;
pub use message::{Event, Job, What};
pub use partial::Checkpoints;
pub use ranges::RangeCache;
pub use run_cell::{CellResult, Resources, run_cell};
pub use transform::TransformCache;
pub use transformed::Transformed;
pub use usage::{Stopwatch, sensible_bytes_on, sensible_memory_bytes};
