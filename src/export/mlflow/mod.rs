//! Runs for MLflow: what of a run it is told, to a file store in a folder or to a server.

pub mod file_store;
mod on_server;
mod rest;
pub mod server;

pub use on_server::OnServer;
pub use rest::{Credentials, Failure, Scope};

use super::series::{end_s, phases, singles};
use super::{Exported, NOTES, RUN_ID, TAGS, said};
use crate::error::Result;
use crate::experiment::Cell;
use crate::report::picture;
use crate::store::record::Status;
use crate::store::{has_model, read_if_there};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Raised when the same run is exported as other content: runs exported before are then replaced.
const EXPORT_REVISION: u32 = 1;
/// The tag that tells what a run was exported from: only a run that is there as a whole has it.
const DIGEST: &str = "harness.export_sha256";
/// Characters of the longest values that MLflow takes (`mlflow/utils/validation.py`); the end of longer ones is left out.
const LONGEST_PARAM: usize = 6000;
const LONGEST_TAG: usize = 8000;
/// Files of a run that become artefacts as they are.
const ARTEFACTS: [&str; 7] = [
    "record.json",
    "cell.toml",
    "trace.json",
    "layers.json",
    "log.txt",
    "predictions.safetensors",
    "pictures.safetensors",
];
/// A network that a run kept, as far as it is not larger than [`LARGEST_MODEL`].
const MODEL: [&str; 2] = ["config.json", "model.safetensors"];
/// Bytes of the largest network that is sent or copied: all of the architectures here are smaller, at 8 bits.
const LARGEST_MODEL: u64 = 1 << 26;
/// The pictures as an image.
const PICTURES: &str = "pictures.png";

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    New,
    Replaced,
    Unchanged,
}

/// What MLflow is told of a run, wherever it keeps that; artefacts are read when they are needed ([`artefacts`]).
struct Content {
    experiment: String,
    name: String,
    is_done: bool,
    /// Milliseconds since 1970.
    start_ms: u64,
    end_ms: u64,
    params: Vec<(String, String)>,
    /// By key.
    metrics: BTreeMap<String, Vec<Value>>,
    /// Without [`DIGEST`] and what people said.
    tags: Vec<(String, String)>,
}

/// A number at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    pub value: f64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub step: usize,
}

impl Content {
    fn of(run: &Exported) -> Self {
        let record = &run.stored.record;
        let ms = |seconds: f64| (seconds * 1000.0).round() as u64;
        let end_ms = ms(end_s(record));
        let mut metrics = BTreeMap::new();
        for single in singles(record) {
            metrics.insert(single.name.to_string(), vec![Value { value: single.value, at_ms: end_ms, step: 0 }]);
        }
        for phase in phases(run) {
            for (key, values) in phase.values {
                let points = phase.times_s.iter().zip(values).zip(&phase.steps);
                let value =
                    |((time_s, value), step): ((&f64, f64), &usize)| Value { value, at_ms: ms(*time_s), step: *step };
                metrics.insert(key, points.map(value).collect());
            }
        }
        Self {
            experiment: run.stored.experiment.clone(),
            name: record.run_id.clone(),
            is_done: record.status == Status::Done,
            start_ms: record.provenance.started_unix_s * 1000,
            end_ms,
            params: params(&record.cell),
            metrics,
            tags: tags(run),
        }
    }
}

/// The fields of a cell by their dotted keys.
fn params(cell: &Cell) -> Vec<(String, String)> {
    // A parameter is one line.
    let param =
        |(key, value): (String, String)| (super::part(&key), cut(&value.replace(['\n', '\r'], " "), LONGEST_PARAM));
    cell.fields().into_iter().map(param).collect()
}

/// What is known of a run before it has begun.
fn first_tags(run_id: &str, grid: &str) -> Vec<(String, String)> {
    let tags =
        [("mlflow.runName", run_id), ("mlflow.source.name", grid), ("mlflow.source.type", "LOCAL"), (RUN_ID, run_id)];
    tags.map(|(key, value)| (key.to_string(), cut(value, LONGEST_TAG))).into()
}

fn tags(run: &Exported) -> Vec<(String, String)> {
    let record = &run.stored.record;
    let mut tags = first_tags(&record.run_id, &record.provenance.grid);
    let of_run = said(run).into_iter().filter(|(key, _)| ![RUN_ID, TAGS, NOTES].contains(key));
    let all = [("mlflow.source.git.commit", record.provenance.git_revision.clone())].into_iter().chain(of_run);
    tags.extend(all.map(|(key, value)| (key.to_string(), cut(&value, LONGEST_TAG))));
    tags
}

/// What people said of a run, by the tag that holds it; nothing: the tag is not to be there.
fn annotations(run: &Exported) -> Vec<(&'static str, String)> {
    let of_people = said(run).into_iter().filter(|(key, _)| [TAGS, NOTES].contains(key));
    of_people.map(|(key, value)| (key, cut(&value, LONGEST_TAG))).collect()
}

/// `text`, or its beginning where it has more than `most` characters.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_string(),
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

/// Calls `keep` with the name and content of each file that a run leaves.
fn artefacts<E: From<crate::error::Error>>(
    run: &Exported,
    mut keep: impl FnMut(&str, Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    for name in ARTEFACTS.iter().chain(model(run)) {
        if let Some(content) = read_if_there(&run.stored.folder.join(name))? {
            keep(name, content)?;
        }
    }
    match &run.pictures {
        Some(pixels) => keep(PICTURES, picture::sheet(pixels)?),
        None => Ok(()),
    }
}

/// The files of the network that the run kept; none where it kept none, or one that is too large.
fn model(run: &Exported) -> &'static [&'static str] {
    let folder = &run.stored.folder;
    let is_small = |name: &&str| std::fs::metadata(folder.join(name)).is_ok_and(|file| file.len() <= LARGEST_MODEL);
    if has_model(folder) && MODEL.iter().all(is_small) { &MODEL } else { &[] }
}

/// Of everything that determines what MLflow is told of `run`, when it is kept at `place`.
fn digest(run: &Exported, place: &str) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{EXPORT_REVISION} {place} {}\n", run.stored.experiment));
    for name in ARTEFACTS.iter().chain(model(run)) {
        let content = read_if_there(&run.stored.folder.join(name))?;
        hash.update(format!("{name} {}\n", content.as_ref().map_or(-1, |content| content.len() as i64)));
        hash.update(content.unwrap_or_default());
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The folder of the file store in which a run's artefacts lie at `artifact_uri`, if it is one: what [`digest`] was given there.
fn place_of(artifact_uri: &str) -> Option<String> {
    let path = reqwest::Url::parse(artifact_uri).ok().filter(|uri| uri.scheme() == "file")?.to_file_path().ok()?;
    // STORE/EXPERIMENT/RUN/artifacts
    Some(path.ancestors().nth(3)?.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_store_is_known_by_the_place_of_artefacts() {
        let places =
            ["file:///a%20b/m%C3%BC/1/2/artifacts", "mlflow-artifacts:/1/2/artifacts", "file:///artifacts", ""]
                .map(place_of);
        assert_eq!(places, [Some("/a b/mü".to_string()), None, None, None]);
    }

    #[test]
    fn what_is_too_long_says_that_it_was_cut() {
        assert_eq!([cut("äöü", 3), cut("äöüß", 3), cut("", 1)], ["äöü", "äö…", ""]);
    }
}
