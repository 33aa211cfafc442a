//! Job arrays of Slurm, or of HyperQueue, whose tasks work on a grid: what was submitted, the batch script, and what the engine says of the tasks.
//!
//! Nothing here schedules. The folder of results is the truth: a task is `harness run GRID --worker=SUBMISSION`, which takes cells until none is left
//! or its time is nearly over, and any number of them may come and go.

mod commands;
mod engine;
mod hq;
mod script;
mod submission;
mod tasks;

pub use commands::MAX_ARRAY_SIZE;
pub use engine::Engine;
pub use script::{Script, quoted, text_of};
pub use submission::{Array, CellState, Submission};
pub use tasks::{Stage, Task, last_words};
