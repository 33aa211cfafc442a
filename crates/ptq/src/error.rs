//! The one error type of the library.
//!
//! Texts are lower-case fragments that name what is wrong, one cause, and what to do next.

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
    /// Candle refused an operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether a GPU had no memory left for an operation, which may succeed on fewer images.
    pub fn is_out_of_memory(&self) -> bool {
        // Candle keeps the errors of the driver and its libraries as text.
        let Error::Candle(error) = self else { return false };
        let text = error.to_string();
        ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"]
            .iter()
            .any(|code| text.contains(code))
    }

    /// Returns a closure for `map_err` that names what was being done to which path.
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
        move |source| Error::Io { action, path: path.to_path_buf(), source }
    }
}
