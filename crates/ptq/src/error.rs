//! The one error type of the library.
//!
//! Texts are lower-case fragments that name what is wrong, one cause, and what to do next.

use crate::device_error::DeviceError;
use std::path::{Path, PathBuf};

/// Why a network could not be built or quantized.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that leave nothing to do.
    #[error("{0}")]
    Settings(String),
    /// Weights lack tensors, have extra ones, or tensors of another shape: all of them, in one list.
    #[error("{origin}: weights of {arch} do not fit: {}", problems.join("; "))]
    Weights {
        /// Name of the architecture.
        arch: String,
        /// Where the weights come from.
        origin: String,
        /// One entry per tensor.
        problems: Vec<String>,
    },
    /// Tensor shapes that do not go together.
    #[error("{op}: {problem}")]
    Shape {
        /// The operation that refused them.
        op: &'static str,
        /// Which, and why.
        problem: String,
    },
    /// An activation is NaN or infinite.
    #[error("sanity check failed: {0}")]
    NotFinite(String),
    /// A loss became NaN or infinite.
    #[error("the loss of unit {unit} became {value} at iteration {iteration}; lower the learning rates")]
    Diverged {
        /// Name of the unit.
        unit: String,
        /// From 1.
        iteration: usize,
        /// The loss.
        value: f64,
    },
    /// Whoever asked for the computation cancelled it.
    #[error("interrupted")]
    Interrupted,
    /// A file could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done to it.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Candle refused an operation, or a device failed.
    #[error("{}", DeviceError::explained(&.0.to_string()))]
    Candle(#[from] candle_core::Error),
}

/// Result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What an error of a GPU means; `None` for all others.
    pub fn of_device(&self) -> Option<&'static DeviceError> {
        match self {
            Error::Candle(error) => DeviceError::of(&error.to_string()),
            _ => None,
        }
    }

    /// Returns a closure for `map_err` that names what was being done to which path.
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
        move |source| Error::Io { action, path: path.to_path_buf(), source }
    }
}
