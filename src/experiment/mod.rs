//! From a grid file to cells.
mod cell;
pub use cell::{Bits, Cell, Setting};

/// A grid file that is wrong, with the place.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct GridError {
    message: String,
}
