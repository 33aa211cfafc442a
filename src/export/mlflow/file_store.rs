//! MLflow's file store: `DIR/<experiment id>/<run id>/{meta.yaml,params,metrics,tags,artifacts}`
//! (`mlflow/store/tracking/file_store.py`).
//!
//! Ids are hashes of names, so that a run is the same run in every export. A run whose content did not change is left as
//! it is, with what people wrote to it in MLflow.

use super::series::{end_s, phases, singles};
use super::{Run, part};
use crate::disk::atomic;
use crate::disk::sha256;
use crate::error::{Error, Result};
use crate::report::picture;
use crate::store::read_if_there;
use crate::store::record::Status;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Raised when the same run is exported as other files: runs exported before are then replaced.
const EXPORT_REVISION: u32 = 1;
/// What the file store calls them.
const META: &str = "meta.yaml";
const FINISHED: u32 = 3;
const FAILED: u32 = 4;
/// The tag that tells what a run was exported from.
const DIGEST: &str = "harness.export_sha256";
/// What stays as it is in the path of a URL.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Files of a run that become artefacts as they are.
const ARTEFACTS: [&str; 6] =
    ["record.json", "cell.toml", "trace.json", "log.txt", "predictions.safetensors", "pictures.safetensors"];

/// A file store.
pub struct FileStore {
    folder: PathBuf,
    /// Ids by name.
    experiments: BTreeMap<String, String>,
}

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    New,
    Replaced,
    Unchanged,
}

impl FileStore {
    /// The store in `folder`, which is made if it is missing; experiments that are there already are known by name.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("cannot make folder", folder))?;
        let folder = folder.canonicalize().map_err(Error::io("cannot read", folder))?;
        let mut experiments = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(Error::io("cannot read", &folder))? {
            let path = entry.map_err(Error::io("cannot read", &folder))?.path();
            let Ok(meta) = fs::read_to_string(path.join(META)) else { continue };
            let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            experiments
                .extend(meta.lines().find_map(|line| line.strip_prefix("name:")).map(|name| (unquoted(name), id)));
        }
        Ok(Self { folder, experiments })
    }

    /// Writes `run`, whole or not at all.
    pub fn write(&mut self, run: &Run) -> Result<Written> {
        let experiment = self.experiment(run)?;
        let id = run_id(run);
        let target = self.folder.join(&experiment).join(&id);
        let digest = self.digest(run)?;
        let exists = target.exists();
        if exists && fs::read_to_string(target.join("tags").join(DIGEST)).is_ok_and(|known| known == digest) {
            annotate(&target, run)?;
            return Ok(Written::Unchanged);
        }
        let staging = self.staging()?;
        let new = staging.path().join("run");
        self.fill(&new, run, (&experiment, &id), &digest)?;
        if exists {
            let old = staging.path().join("old");
            fs::rename(&target, &old).map_err(Error::io("cannot replace", &target))?;
        }
        fs::rename(&new, &target).map_err(Error::io("cannot write", &target))?;
        Ok(if exists { Written::Replaced } else { Written::New })
    }

    /// The id of the experiment of `run`, which is made if it is missing.
    fn experiment(&mut self, run: &Run) -> Result<String> {
        let name = &run.stored.experiment;
        if let Some(id) = self.experiments.get(name) {
            return Ok(id.clone());
        }
        // MLflow's own ids are numbers of 18 digits.
        let hash = Sha256::digest(name.as_bytes());
        let number = hash.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let id = (100_000_000_000_000_000 + number % 900_000_000_000_000_000).to_string();
        let target = self.folder.join(&id);
        if target.exists() {
            let problem =
                format!("is not MLflow's experiment {name:?}, though it has its id; export to another folder");
            return Err(Error::content(target, problem));
        }
        let started_ms = run.stored.record.provenance.started_unix_s * 1000;
        let meta = yaml(&[
            ("artifact_location", quoted(&self.uri(&target))),
            ("creation_time", started_ms.to_string()),
            ("experiment_id", quoted(&id)),
            ("last_update_time", started_ms.to_string()),
            ("lifecycle_stage", "active".to_string()),
            ("name", quoted(name)),
        ]);
        atomic::write(&target.join(META), meta.as_bytes())?;
        self.experiments.insert(name.clone(), id.clone());
        Ok(id)
    }

    /// A folder within the store that is removed at the end.
    fn staging(&self) -> Result<tempfile::TempDir> {
        let staging = tempfile::Builder::new().prefix(".writing-").tempdir_in(&self.folder);
        staging.map_err(Error::io("cannot write into", &self.folder))
    }

    fn uri(&self, path: &Path) -> String {
        format!("file://{}", utf8_percent_encode(&path.to_string_lossy(), IN_PATH))
    }

    /// Of everything that determines the files of `run`.
    fn digest(&self, run: &Run) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(format!("{EXPORT_REVISION} {} {}\n", self.folder.display(), run.stored.experiment));
        for name in ARTEFACTS {
            let content = read_if_there(&run.stored.folder.join(name))?;
            hash.update(format!("{name} {}\n", content.as_ref().map_or(-1, |content| content.len() as i64)));
            hash.update(content.unwrap_or_default());
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn fill(&self, folder: &Path, run: &Run, (experiment, id): (&str, &str), digest: &str) -> Result<()> {
        let record = &run.stored.record;
        let write = |kind: &str, key: &str, content: &str| put(&folder.join(kind).join(key), content.as_bytes());
        let end_ms = (end_s(record) * 1000.0).round() as u64;
        let artifacts = self.folder.join(experiment).join(id).join("artifacts");
        let status = if record.status == Status::Done { FINISHED } else { FAILED };
        let meta = yaml(&[
            ("artifact_uri", quoted(&self.uri(&artifacts))),
            ("end_time", end_ms.to_string()),
            ("entry_point_name", quoted("")),
            ("experiment_id", quoted(experiment)),
            ("lifecycle_stage", "active".to_string()),
            ("run_id", quoted(id)),
            ("run_name", quoted(&record.run_id)),
            ("run_uuid", quoted(id)),
            ("source_name", quoted("")),
            ("source_type", "4".to_string()),
            ("source_version", quoted("")),
            ("start_time", (record.provenance.started_unix_s * 1000).to_string()),
            ("status", status.to_string()),
            ("tags", "[]".to_string()),
            ("user_id", quoted("")),
        ]);
        put(&folder.join(META), meta.as_bytes())?;
        for (key, value) in record.cell.fields() {
            // A parameter is one line.
            write("params", &part(&key), &value.replace(['\n', '\r'], " "))?;
        }
        for single in singles(record) {
            write("metrics", single.name, &format!("{end_ms} {} 0\n", single.value))?;
        }
        for phase in phases(run) {
            for (key, values) in &phase.values {
                let points = phase.times_s.iter().zip(values).zip(&phase.steps);
                let lines = points.map(|((time_s, value), step)| format!("{:.0} {value} {step}\n", time_s * 1000.0));
                write("metrics", key, &lines.collect::<String>())?;
            }
        }
        for (key, value) in tags(run, digest) {
            write("tags", key, &value)?;
        }
        annotate(folder, run)?;
        // The clients expect the folder even where nothing is in it.
        fs::create_dir_all(folder.join("artifacts")).map_err(Error::io("cannot make folder", folder))?;
        for name in ARTEFACTS {
            if let Some(content) = read_if_there(&run.stored.folder.join(name))? {
                put(&folder.join("artifacts").join(name), &content)?;
            }
        }
        if let Some(pixels) = &run.pictures {
            put(&folder.join("artifacts/pictures.png"), &picture::sheet(pixels)?)?;
        }
        Ok(())
    }
}

/// 32 hexadecimal digits, as MLflow's own.
fn run_id(run: &Run) -> String {
    let name = format!("{}\n{}", run.stored.experiment, run.stored.record.run_id);
    sha256(&[name.as_bytes()])[..32].to_string()
}

/// Notes and tags of a run change when they will: they are no part of its digest.
fn annotate(folder: &Path, run: &Run) -> Result<()> {
    let annotations = &run.stored.annotations;
    let tags: Vec<&str> = annotations.tags.iter().map(String::as_str).collect();
    let notes: Vec<&str> = annotations.notes.iter().map(|note| note.text.as_str()).collect();
    for (key, value) in [("harness.tags", tags.join(", ")), ("harness.notes", notes.join("\n"))] {
        let path = folder.join("tags").join(key);
        match value.is_empty() {
            false => put(&path, value.as_bytes())?,
            true if path.exists() => fs::remove_file(&path).map_err(Error::io("cannot remove", &path))?,
            true => (),
        }
    }
    Ok(())
}

fn tags(run: &Run, digest: &str) -> Vec<(&'static str, String)> {
    let record = &run.stored.record;
    let provenance = &record.provenance;
    let mut tags = vec![
        (DIGEST, digest.to_string()),
        ("mlflow.runName", record.run_id.clone()),
        ("mlflow.source.name", provenance.grid.clone()),
        ("mlflow.source.type", "LOCAL".to_string()),
        ("mlflow.source.git.commit", provenance.git_revision.clone()),
        ("harness.run_id", record.run_id.clone()),
        ("harness.status", record.status.to_string()),
        ("harness.version", provenance.crate_version.clone()),
        ("harness.method_revision", record.method_revision.to_string()),
        ("harness.device", provenance.device.clone()),
        ("harness.threads", provenance.threads.to_string()),
        ("harness.sha256.weights", record.hashes.weights.clone()),
        ("harness.sha256.calib", record.hashes.calib.clone()),
        ("harness.sha256.test", record.hashes.test.clone()),
    ];
    tags.extend(record.error.iter().map(|error| ("harness.error", error.clone())));
    tags
}

/// Within a folder that is renamed as a whole, files need no care of their own.
fn put(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Error::io("cannot make folder", folder))?;
    fs::write(path, content).map_err(Error::io("cannot write", path))
}

fn yaml(fields: &[(&str, String)]) -> String {
    fields.iter().map(|(key, value)| format!("{key}: {value}\n")).collect()
}

/// A double-quoted scalar of YAML, in ASCII.
fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        ' '..='~' => c.to_string(),
        c if u32::from(c) < 0x1_0000 => format!("\\u{:04x}", u32::from(c)),
        c => format!("\\U{:08x}", u32::from(c)),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// The text of a scalar of YAML in one line, as [`quoted`] and MLflow write them.
fn unquoted(scalar: &str) -> String {
    let scalar = scalar.trim();
    let within = |quote| scalar.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    if let Some(text) = within('\'') {
        return text.replace("''", "'");
    }
    let Some(text) = within('"') else { return scalar.to_string() };
    let mut unquoted = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        let digits = match escaped {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            other => {
                unquoted.push(other.unwrap_or(c));
                continue;
            }
        };
        let code: String = chars.by_ref().take(digits).collect();
        unquoted.extend(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32));
    }
    unquoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_scalars_come_back() {
        for text in ["", "plain", "a: \"b\" \\ c", "ü 😀\n\t\u{7f}"] {
            assert_eq!(unquoted(&quoted(text)), text);
            assert!(quoted(text).is_ascii() && !quoted(text).contains('\n'));
        }
        assert_eq!([" plain ", "'it''s'"].map(unquoted), ["plain", "it's"]);
    }
}
