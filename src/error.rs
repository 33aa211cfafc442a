//! The one error type of the harness; that of the core is part of it.
//!
//! Texts are lower-case fragments that name the path and the key, one cause, and what to do next; `main` turns
//! them into a report.

use ptq::device_error::DeviceError;
use std::path::{Path, PathBuf};

/// What can go wrong, from reading a grid to writing a table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    /// A file was read, but its content is not what it should be.
    #[error("{}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    /// A grid file, filter or override is wrong; rendered with the offending text.
    #[error(transparent)]
    Grid(#[from] Box<crate::diagnostic::GridError>),
    /// A name, flag or value given on the command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A filter selected no cell or run.
    #[error("{0}")]
    NothingMatched(String),
    /// An image that cannot be decoded.
    #[error("{0}")]
    Image(String),
    /// A repository or file on the Hugging Face Hub that cannot be had, why, and what to do.
    #[error("{name}: {problem}")]
    Hub { name: String, problem: String },
    /// An MLflow server that does not take what it is sent, why, and what to do.
    #[error("MLflow at {server} {problem}")]
    Tracker { server: String, problem: String },
    /// A check that must hold before a cell is quantized does not.
    #[error("sanity check failed: {0}")]
    Sanity(String),
    /// A device was asked for that this binary or machine does not have.
    #[error("{0}")]
    Device(String),
    /// A bug in the harness, caught at the border of a cell.
    #[error("the cell panicked: {0}; this is a bug of the harness, please report it with the cell's TOML")]
    Panicked(String),
    /// A table or figure could not be made.
    #[error("{0}")]
    Report(String),
    /// A program of a cluster is missing or failed.
    #[error("{0}")]
    Cluster(String),
    /// The numerical core refuses, diverged or was interrupted.
    #[error(transparent)]
    Ptq(#[from] ptq::Error),
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
            Error::Ptq(error) => error.of_device(),
            Error::Candle(error) => DeviceError::of(&error.to_string()),
            _ => None,
        }
    }

    /// Returns a closure for `map_err` that names what was being done to which path.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
        move |source| Error::Io { action, path: path.to_path_buf(), source }
    }

    /// A file whose content is wrong.
    pub fn content(path: impl Into<PathBuf>, problem: impl Into<String>) -> Error {
        Error::Content { path: path.into(), problem: problem.into() }
    }
}
