//! Run ids: what determines a result, hashed.

use super::cell::Cell;
use super::revisions::Revisions;
use crate::disk::sha256;
use serde::{Deserialize, Serialize};
use std::fmt;

/// SHA-256 of everything outside the cell that determines a result, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    pub weights: String,
    /// Of the indices of the calibration images and the images themselves.
    pub calib: String,
    pub test: String,
}

impl Hashes {
    /// Of the inputs of `cell` that cannot be read, as it names them: what is computed from them is a failure.
    pub fn unreadable(cell: &Cell) -> Self {
        let unreadable = |what: &str| format!("unreadable: {what}");
        let data = unreadable(cell.data.as_ref().unwrap_or(&cell.dataset));
        Self { weights: unreadable(&cell.weights), calib: data.clone(), test: data }
    }
}

/// A readable slug and ten hexadecimal digits, `resnet20-w2a2-qdrop-s0-0123456789`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(String);

impl RunId {
    /// Hash of every field of the cell but its variant's name and where its data lie, of weights, calibration sample and test set, and of
    /// revisions: the method's, and those of modules that are raised. Devices, threads, paths and git revisions are recorded instead.
    pub fn new(cell: &Cell, hashes: &Hashes, revisions: &Revisions) -> Self {
        let mut text = String::new();
        for (key, value) in identity(cell, hashes, revisions) {
            text.push_str(&format!("{key} = {value}\n"));
        }
        Self(format!("{}-{:.10}", cell.slug(), sha256(&[text.as_bytes()])))
    }

    /// An id as it was given to a run, or the readable part alone where the rest is not known.
    pub fn given(id: String) -> Self {
        Self(id)
    }
}

/// Everything that is hashed, by name, in a fixed order.
pub fn identity(cell: &Cell, hashes: &Hashes, revisions: &Revisions) -> Vec<(String, String)> {
    let mut fields = cell.fields();
    fields.remove("variant");
    // Of a file the content counts, which is hashed below, not where it lies.
    fields.remove("data");
    if let Some(weights) = fields.get_mut("weights") {
        weights.truncate(weights.find(':').unwrap_or(weights.len()));
    }
    let mut parts: Vec<(String, String)> = fields.into_iter().collect();
    parts.push(("hash of weights".to_string(), hashes.weights.clone()));
    parts.push(("hash of calibration images".to_string(), hashes.calib.clone()));
    parts.push(("hash of test images".to_string(), hashes.test.clone()));
    parts.push(("revision of the method".to_string(), revisions.method.to_string()));
    parts.extend(revisions.raised().map(|(name, revision)| (format!("revision of {name}"), revision.to_string())));
    parts
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
