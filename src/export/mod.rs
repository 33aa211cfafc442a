//! Stored runs for other tools: MLflow's file store and servers, Trackio's databases, TensorBoard's event files; networks that they kept as
//! ONNX models and as folders for the Hugging Face Hub.
//!
//! An export is a function of the stored runs: the same run gets the same name and content each time, files and folders
//! are either whole or absent, and nothing is written outside the folder or server that was given.

pub mod hub_folder;
pub mod mlflow;
pub mod onnx;
mod proto;
mod series;
pub mod tensorboard;
mod tfrecord;
pub mod trackio;

pub use series::Keys;

use crate::disk::sha256;
use crate::error::Result;
use crate::store::{PixelPairs, Stored, read_log, read_traces};
use ptq::recon::trace::UnitTrace;

/// The run's id, and what people say of it, which changes when they will.
const RUN_ID: &str = "harness.run_id";
const TAGS: &str = "harness.tags";
const NOTES: &str = "harness.notes";

/// A run with everything of it that is exported.
pub struct Exported<'a> {
    pub stored: &'a Stored,
    pub traces: Vec<UnitTrace>,
    /// `None` without a transform network.
    pub pictures: Option<PixelPairs>,
    pub log: Option<String>,
}

impl<'a> Exported<'a> {
    /// Errors: a file of the run's folder that cannot be read.
    pub fn read(stored: &'a Stored) -> Result<Self> {
        let traces = read_traces(&stored.folder)?;
        Ok(Self { stored, traces, pictures: PixelPairs::read(stored)?, log: read_log(&stored.folder) })
    }
}

/// What is known of a run beside its cell and its numbers, by the names that it has in other tools; the last two, of what people said of it,
/// are empty where nobody did.
fn said(run: &Exported) -> Vec<(&'static str, String)> {
    let (record, annotations) = (&run.stored.record, &run.stored.annotations);
    let provenance = &record.provenance;
    let mut said = vec![
        (RUN_ID, record.run_id.clone()),
        ("harness.status", record.status.to_string()),
        ("harness.version", provenance.crate_version.clone()),
        ("harness.method_revision", record.method_revision.to_string()),
        ("harness.device", provenance.device.clone()),
        ("harness.threads", provenance.threads.to_string()),
        ("harness.sha256.weights", record.hashes.weights.clone()),
        ("harness.sha256.calib", record.hashes.calib.clone()),
        ("harness.sha256.test", record.hashes.test.clone()),
    ];
    said.extend(record.error.iter().map(|error| ("harness.error", error.clone())));
    let tags: Vec<&str> = annotations.tags.iter().map(String::as_str).collect();
    let notes: Vec<&str> = annotations.notes.iter().map(|note| note.text.as_str()).collect();
    said.extend([(TAGS, tags.join(", ")), (NOTES, notes.join("\n"))]);
    said
}

/// What a run of an experiment is called where names have 32 hexadecimal digits: the same in every export.
fn sha_of_name(experiment: &str, run_id: &str) -> String {
    sha256(&[format!("{experiment}\n{run_id}").as_bytes()])[..32].to_string()
}

/// Characters of the longest name that is kept as it is: three of them make a key that MLflow takes (250), and each a file's name (255).
const LONGEST_PART: usize = 80;

/// `name` as a part of a path and a key that all tools take: letters, digits, `_`, `.`, `-`, and neither `.` nor `..`; of a longer one the
/// beginning and a hash.
fn part(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '_' };
    let mut part: String = name.chars().map(kept).collect();
    if part.len() > LONGEST_PART {
        part.truncate(LONGEST_PART - 17);
        part = format!("{part}-{:.16}", sha256(&[name.as_bytes()]));
    }
    match part.chars().all(|c| c == '.') {
        true => part.replace('.', "_") + "_",
        false => part,
    }
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn names_become_one_part_of_a_path() {
        let parts = ["layer1.0", "../x", "..", ".", "", "a b/ü"].map(part);
        assert_eq!(parts, ["layer1.0", ".._x", "___", "__", "_", "a_b__"]);
        let [long, other] = ["x", "y"].map(|end| part(&("layer/".repeat(50) + end)));
        assert!(long.len() == 80 && long.starts_with("layer_layer_") && long != other, "{long}");
    }
}
