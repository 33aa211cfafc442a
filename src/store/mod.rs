//! Runs on disk: `results/<experiment>/runs/<run-id>/`, with the quantized networks that they keep.

pub mod annotations;
mod check;
pub mod claims;
mod collection;
mod configuration;
mod ledger;
pub mod live;
mod migrate;
mod model;
mod pixels;
mod plan;
pub mod processor;
mod provenance;
mod query;
pub mod record;
pub mod removal;
mod replace;
mod run;
mod strip;
mod time;
mod transform;

pub use annotations::Annotations;
pub use collection::{Collection, Stored, check_name, scan_all};
pub use configuration::SAID_OF_RUNS;
pub use ledger::Ledger;
pub use model::{ModelConfig, ModelFiles, RunOfModel, SavedModel, has_model};
pub use pixels::PixelPairs;
pub use plan::{Planned, State, plan};
pub use query::{Query, select_one};
pub use run::{Artefacts, Run};
pub use strip::{Colour, Strip};
pub use time::{since_1970, utc};
pub use transform::{SavedTransform, transform_file};

use crate::disk::atomic;
use crate::disk::foreign::{self, LARGEST_OF_RUN, LARGEST_TEXT, guarded};
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use claims::{Claims, Owner};
use ptq::quant::diagnosis::Diagnosis;
use ptq::recon::trace::UnitTrace;
use rayon::prelude::*;
use record::Record;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names of the files of a run.
const RECORD: &str = "record.json";
const CELL: &str = "cell.toml";
const TRACE: &str = "trace.json";
const PREDICTIONS: &str = "predictions.safetensors";
const LAYERS: &str = "layers.json";
const PICTURES: &str = "pictures.safetensors";
const TRANSFORM: &str = "transform.safetensors";
const NOTES: &str = "notes.jsonl";
const LOG: &str = "log.txt";
const LOCK: &str = ".lock";
/// How often, and how long apart, a lock is asked for before it counts as held by another harness.
const LOCK_TRIES: usize = 4;
const LOCK_PAUSE: Duration = Duration::from_millis(25);
/// What unfinished runs have trained so far.
const PARTIAL: &str = ".partial";
/// What trackers have yet to be sent.
const LEDGER: &str = ".tracking";
/// Prefix of folders that are being written; what a killed process left of them is ignored.
const TEMPORARY: &str = ".writing-";

/// Predicted class of each image, and its label, in the order of the splits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predictions {
    pub test: Vec<u32>,
    pub calib: Vec<u32>,
    pub test_labels: Vec<u32>,
    pub calib_labels: Vec<u32>,
    /// Positions of the calibration images in the pool; empty in files from before this was kept.
    pub calib_indices: Vec<u32>,
}

/// Some calibration images beside what a transform network made of them, `(N, C, H, W)`, normalised.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pictures {
    #[serde(with = "run::values")]
    pub x: Tensor,
    #[serde(with = "run::values")]
    pub t_x: Tensor,
}

impl Pictures {
    /// The pictures of the run in `folder`; `None` if it left none.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(PICTURES);
        if !path.exists() {
            return Ok(None);
        }
        let mut tensors = tensors(&path)?;
        match (tensors.remove("x"), tensors.remove("t_x")) {
            (Some(x), Some(t_x)) if x.shape() == t_x.shape() && x.rank() == 4 => Ok(Some(Self { x, t_x })),
            _ => Err(Error::content(&path, "no tensors x and t_x of one shape (N, C, H, W)".to_string())),
        }
    }

    fn to_safetensors(&self, run: &Path) -> Result<Vec<u8>> {
        safetensors::serialize([("x", &self.x), ("t_x", &self.t_x)], None)
            .map_err(|error| Error::content(run.join(PICTURES), error.to_string()))
    }
}

/// The runs of one experiment.
#[derive(Clone, Debug)]
pub struct Store {
    runs: PathBuf,
    folder: PathBuf,
}

/// What a scan of a store found.
#[derive(Debug, Default)]
pub struct Scan {
    /// By run id.
    pub records: Vec<Record>,
    /// Folders that hold no readable record, or one that cannot be true, and why.
    pub broken: Vec<(PathBuf, String)>,
}

impl Store {
    /// The store of `experiment` under `results`; nothing is created yet.
    pub fn new(results: &Path, experiment: &str) -> Self {
        let folder = results.join(experiment);
        Self { runs: folder.join("runs"), folder }
    }

    /// A store whose runs lie in `folder` itself, of no experiment; the folder is made.
    pub fn of_runs(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("cannot make folder", folder))?;
        Ok(Self { runs: folder.to_path_buf(), folder: folder.to_path_buf() })
    }

    /// `results/<experiment>`, where tables and figures go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folders, checks that they can be written, and lets this process make runs of this experiment, beside others, for as long as
    /// the returned file is open.
    pub fn join(&self) -> Result<File> {
        self.locked(File::try_lock_shared)
    }

    /// What trackers have yet to be sent of these runs.
    pub fn ledger(&self) -> Ledger {
        Ledger::of(&self.runs)
    }

    /// The claims of this process.
    pub fn claims(&self) -> Result<Claims> {
        Claims::open(&self.runs)
    }

    /// Has the next looks see what processes on other machines have stored.
    pub fn look_anew(&self) -> Result<()> {
        claims::look_anew(&self.runs)
    }

    /// The same for a process that keeps all others from writing runs of this experiment for as long as the returned file is open.
    pub fn lock(&self) -> Result<File> {
        self.locked(File::try_lock)
    }

    fn locked(&self, try_lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<File> {
        std::fs::create_dir_all(&self.runs).map_err(Error::io("cannot make folder", &self.runs))?;
        let path = self.runs.join(LOCK);
        let file = File::create(&path).map_err(Error::io("cannot write", &path))?;
        let mut locked = try_lock(&file);
        for _ in 0..LOCK_TRIES {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            // Whoever asks `is_locked` holds it for a moment.
            std::thread::sleep(LOCK_PAUSE);
            locked = try_lock(&file);
        }
        match locked {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::Usage(format!(
                "another harness is at work on this experiment ({} is locked); wait for it",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(Error::io("cannot lock", &path)(error)),
        }
    }

    /// The process that is making run `id`, as far as somebody who only looks can know.
    pub fn maker(&self, id: &str) -> Option<Owner> {
        claims::maker(&self.runs, id)
    }

    /// Whether another process writes runs of this experiment, or removes them, now.
    pub fn is_locked(&self) -> bool {
        let file = foreign::open("cannot read", &self.runs.join(LOCK));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// The record of run `id`, if there is one that can be read.
    pub fn record(&self, id: &str) -> Option<Record> {
        read_run(&self.run_folder(id)).ok()
    }

    /// Stores a run, replacing one of the same id but for its notes and tags: all its files appear at once, or none.
    pub fn write_run(&self, record: &Record, cell: &str, artefacts: &Artefacts) -> Result<()> {
        let target = self.runs.join(&record.run_id);
        // Whoever removes the folder of results while a grid runs loses what was stored, and not what is still to come.
        std::fs::create_dir_all(&self.runs).map_err(Error::io("cannot make folder", &self.runs))?;
        let folder = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempdir_in(&self.runs)
            .map_err(Error::io("cannot write into", &self.runs))?;
        let write = |name: &str, content: &[u8]| atomic::write(&folder.path().join(name), content);
        write(CELL, cell.as_bytes())?;
        write(TRACE, &json(&target, &artefacts.traces)?)?;
        if let Some(predictions) = &artefacts.predictions {
            write(PREDICTIONS, &predictions.to_safetensors(&target)?)?;
        }
        if let Some(layers) = &artefacts.layers {
            write(LAYERS, &json(&target, layers)?)?;
        }
        if let Some(pictures) = &artefacts.pictures {
            write(PICTURES, &pictures.to_safetensors(&target)?)?;
        }
        if let Some(ModelFiles { config, weights }) = &artefacts.model {
            write(model::WEIGHTS, weights)?;
            write(model::CONFIG, config.as_bytes())?;
        }
        if let Some(transform) = &artefacts.transform {
            write(TRANSFORM, transform)?;
        }
        if let Some(log) = &artefacts.log {
            write(LOG, log.as_bytes())?;
        }
        write(RECORD, &json(&target, record)?)?;
        readable_by_all(folder.path()).map_err(Error::io("cannot set the mode of", &target))?;
        replace::put(folder, &target)
    }

    /// Every stored run.
    pub fn scan(&self) -> Result<Scan> {
        let mut scan = Scan::default();
        let read = |path: PathBuf| match read_run(&path) {
            Ok(record) => Ok(record),
            Err(problem) => Err((path, problem)),
        };
        let runs: Vec<Result<Record, (PathBuf, String)>> = self.run_folders()?.into_par_iter().map(read).collect();
        for run in runs {
            match run {
                Ok(record) => scan.records.push(record),
                Err(broken) => scan.broken.push(broken),
            }
        }
        scan.records.sort_by(|a, b| a.run_id.cmp(&b.run_id));
        scan.broken.sort();
        Ok(scan)
    }

    /// The folders of all runs, readable or not, in no order; also of those that a killed process left without their successor.
    fn run_folders(&self) -> Result<Vec<PathBuf>> {
        let is_run = |path: &PathBuf| match replace::target_of(path) {
            Some(target) => !target.exists(),
            None => !path.file_name().unwrap_or_default().to_string_lossy().starts_with('.'),
        };
        Ok(entries(&self.runs)?.into_iter().filter(is_run).collect())
    }

    /// What killed processes left half-written, and what runs left for a next attempt that are done or failed since. Only a process that
    /// holds the lock may take it for that.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>> {
        let is_leftover = |path: &PathBuf| match replace::target_of(path) {
            Some(target) => target.exists(),
            None => path.file_name().unwrap_or_default().to_string_lossy().starts_with(TEMPORARY),
        };
        let mut leftovers: Vec<PathBuf> = entries(&self.runs)?.into_iter().filter(is_leftover).collect();
        let is_stored = |path: &PathBuf| path.file_name().is_some_and(|id| self.runs.join(id).exists());
        leftovers.extend(entries(&self.partial())?.into_iter().filter(is_stored));
        leftovers.sort();
        Ok(leftovers)
    }

    /// The folder in which runs that are interrupted leave what they have trained, each in a folder called by its id.
    pub fn partial(&self) -> PathBuf {
        self.runs.join(PARTIAL)
    }

    /// Removes what run `id` has left there. Where that fails it is a leftover.
    pub fn remove_partial(&self, id: &str) {
        let folder = self.partial();
        std::fs::remove_dir_all(folder.join(id)).ok();
        // As long as another run has something there, it stays.
        std::fs::remove_dir(folder).ok();
    }

    /// Folder of run `id`.
    pub fn run_folder(&self, id: &str) -> PathBuf {
        replace::present(self.runs.join(id))
    }
}

/// The content of a file; `None` if there is none.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match foreign::read("cannot read", path, LARGEST_OF_RUN) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// The loss traces of the run in `folder`.
pub fn read_traces(folder: &Path) -> Result<Vec<UnitTrace>> {
    let path = folder.join(TRACE);
    let bytes = foreign::read("cannot read", &path, LARGEST_OF_RUN)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::content(&path, error.to_string()))
}

/// What quantizing did to each layer of the run in `folder`; `None` if it failed, or is from before this was kept.
pub fn read_layers(folder: &Path) -> Result<Option<Diagnosis>> {
    let path = folder.join(LAYERS);
    let read =
        |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(|error| Error::content(&path, error.to_string()));
    read_if_there(&path)?.map(read).transpose()
}

/// The log of the run in `folder`; `None` if it left none that can be read.
pub fn read_log(folder: &Path) -> Option<String> {
    String::from_utf8(foreign::read("cannot read", &folder.join(LOG), LARGEST_OF_RUN).ok()?).ok()
}

/// Names of the experiments under `results`, sorted.
pub fn experiments(results: &Path) -> Result<Vec<String>> {
    let folders = entries(results)?.into_iter().filter(|path| path.join("runs").is_dir());
    let mut names: Vec<String> =
        folders.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}

/// What is in `folder`; nothing if there is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("cannot read", folder)(error)),
    };
    entries.map(|entry| Ok(entry.map_err(Error::io("cannot read", folder))?.path())).collect()
}

/// The record in the folder of a run, or why it cannot be read or be true.
fn read_run(folder: &Path) -> Result<Record, String> {
    let path = folder.join(RECORD);
    let read = || {
        let json = foreign::read("cannot read", &path, LARGEST_TEXT)?;
        let record = migrate::read(&json).map_err(|problem| Error::content(&path, problem))?;
        check::check(&record).map_err(|problem| Error::content(&path, problem))?;
        Ok(record)
    };
    let record = guarded(path.display(), read).map_err(|error| error.to_string())?;
    let target = replace::target_of(folder);
    let name = target.as_deref().unwrap_or(folder).file_name();
    match name.is_some_and(|name| name.to_str() == Some(&record.run_id)) {
        true => Ok(record),
        false => Err(format!("its record is of run {}", record.run_id)),
    }
}

/// The tensors of a file that a run left. Errors: no such file; what is wrong with it.
fn tensors(path: &Path) -> Result<HashMap<String, Tensor>> {
    let bytes = foreign::read("cannot read", path, LARGEST_OF_RUN)?;
    guarded(path.display(), || {
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
        tensors.map_err(|error| Error::content(path, error.to_string()))
    })
}

fn json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Error::content(path, error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(unix)]
fn readable_by_all(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn readable_by_all(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}

impl Predictions {
    /// U32 tensors `test`, `calib`, `test_labels`, `calib_labels`, `calib_indices`.
    fn to_safetensors(&self, path: &Path) -> Result<Vec<u8>> {
        let tensor = |classes: &[u32]| Tensor::from_slice(classes, classes.len(), &Device::Cpu);
        let tensors = HashMap::from([
            ("test", tensor(&self.test)?),
            ("calib", tensor(&self.calib)?),
            ("test_labels", tensor(&self.test_labels)?),
            ("calib_labels", tensor(&self.calib_labels)?),
            ("calib_indices", tensor(&self.calib_indices)?),
        ]);
        safetensors::serialize(&tensors, None).map_err(|error| Error::content(path, error.to_string()))
    }

    /// The predictions of the run in `folder`.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(PREDICTIONS);
        let mut tensors = tensors(&path)?;
        let calib_indices = match tensors.remove("calib_indices") {
            Some(tensor) => tensor.to_vec1::<u32>()?,
            None => Vec::new(),
        };
        let mut take = |name: &str| match tensors.remove(name) {
            Some(tensor) => Ok(tensor.to_vec1::<u32>()?),
            None => Err(Error::content(&path, format!("no tensor {name}"))),
        };
        Ok(Self {
            test: take("test")?,
            calib: take("calib")?,
            test_labels: take("test_labels")?,
            calib_labels: take("calib_labels")?,
            calib_indices,
        })
    }
}

#[cfg(test)]
mod tests;
