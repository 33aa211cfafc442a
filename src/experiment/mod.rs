//! From a grid file to cells with ids.
//!
//! [`wire`] documents the format.

mod cell;
mod check;
mod declaration;
pub mod facts;
pub mod figure;
pub mod filter;
mod grid;
mod keep;
mod layer;
mod names;
pub mod revisions;
mod run_id;
pub mod slurm;
pub mod table;
pub mod wire;

pub use cell::Cell;
pub use figure::{FIGURE_KINDS, FigureSpec};
pub use filter::Filter;
pub use grid::{Experiment, Options, SMOKE_SUFFIX};
pub use keep::Keep;
pub use names::is_kebab_case;
pub use revisions::Revisions;
pub use run_id::{Hashes, RunId, identity};
pub use slurm::SlurmOptions;
pub use table::{Metric, TableSpec};
pub use wire::Track;

#[cfg(test)]
mod tests;
