//! Answers for programs and scripts.

use crate::error::{Error, Result};
use serde::Serialize;

/// `value`, which errors call `what`, as JSON. What is no number becomes null.
pub fn json(what: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Report(format!("cannot write {what} as JSON: {error}")))
}
