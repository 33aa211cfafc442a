//! MLflow's file store: `DIR/<experiment id>/<run id>/{meta.yaml,params,metrics,tags,artifacts}`
//! (`mlflow/store/tracking/file_store.py`).
//!
//! Ids are hashes of names, so that a run is the same run in every export. A run whose content did not change is left as
//! it is, with what people wrote to it in MLflow.

use super::super::sha_of_name;
use super::{Content, DIGEST, Exported, Written, annotations, artefacts, digest};
use crate::disk::atomic;
use crate::error::{Error, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What the file store calls them.
const META: &str = "meta.yaml";
const FINISHED: u32 = 3;
const FAILED: u32 = 4;
/// What stays as it is in the path of a URL.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A file store.
pub struct FileStore {
    folder: PathBuf,
    /// Ids by name.
    experiments: BTreeMap<String, String>,
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
    pub fn write(&mut self, run: &Exported) -> Result<Written> {
        let experiment = self.experiment(run)?;
        let id = sha_of_name(&run.stored.experiment, &run.stored.record.run_id);
        let target = self.folder.join(&experiment).join(&id);
        let digest = digest(run, &self.folder.display().to_string())?;
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
    fn experiment(&mut self, run: &Exported) -> Result<String> {
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

    fn fill(&self, folder: &Path, run: &Exported, (experiment, id): (&str, &str), digest: &str) -> Result<()> {
        let content = Content::of(run);
        let write = |kind: &str, key: &str, content: &str| put(&folder.join(kind).join(key), content.as_bytes());
        let artifacts = self.folder.join(experiment).join(id).join("artifacts");
        let meta = yaml(&[
            ("artifact_uri", quoted(&self.uri(&artifacts))),
            ("end_time", content.end_ms.to_string()),
            ("entry_point_name", quoted("")),
            ("experiment_id", quoted(experiment)),
            ("lifecycle_stage", "active".to_string()),
            ("run_id", quoted(id)),
            ("run_name", quoted(&content.name)),
            ("run_uuid", quoted(id)),
            ("source_name", quoted("")),
            ("source_type", "4".to_string()),
            ("source_version", quoted("")),
            ("start_time", content.start_ms.to_string()),
            ("status", if content.is_done { FINISHED } else { FAILED }.to_string()),
            ("tags", "[]".to_string()),
            ("user_id", quoted("")),
        ]);
        put(&folder.join(META), meta.as_bytes())?;
        for (key, value) in &content.params {
            write("params", key, value)?;
        }
        for (key, values) in &content.metrics {
            let lines = values.iter().map(|point| format!("{} {} {}\n", point.at_ms, point.value, point.step));
            write("metrics", key, &lines.collect::<String>())?;
        }
        for (key, value) in &content.tags {
            write("tags", key, value)?;
        }
        write("tags", DIGEST, digest)?;
        annotate(folder, run)?;
        // The clients expect the folder even where nothing is in it.
        fs::create_dir_all(folder.join("artifacts")).map_err(Error::io("cannot make folder", folder))?;
        artefacts(run, |name, content| put(&folder.join("artifacts").join(name), &content))
    }
}

/// Notes and tags of a run change when they will: they are no part of its digest.
fn annotate(folder: &Path, run: &Exported) -> Result<()> {
    for (key, value) in annotations(run) {
        let path = folder.join("tags").join(key);
        match value.is_empty() {
            false => put(&path, value.as_bytes())?,
            true if path.exists() => fs::remove_file(&path).map_err(Error::io("cannot remove", &path))?,
            true => (),
        }
    }
    Ok(())
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
