//! From a grid file to cells with ids, and to what is left to do.
//!
//! [`wire`] documents the format.

mod cell;
mod check;
mod declaration;
mod diagnostic;
pub mod figure;
pub mod filter;
mod grid;
mod layer;
mod overridable;
mod plan;
mod run_id;
pub mod table;
pub mod wire;

pub use cell::{Bits, Cell, Setting};
pub use diagnostic::GridError;
pub use figure::{FigureKind, FigureSpec};
pub use filter::Filter;
pub use grid::{Experiment, Options, SMOKE_SUFFIX};
pub(crate) use overridable::overridable;
pub use plan::{Planned, State, plan};
pub use run_id::RunId;
pub use table::{Metric, TableSpec};

#[cfg(test)]
mod tests;
