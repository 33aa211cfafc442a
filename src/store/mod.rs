//! Runs on disk: `results/<experiment>/runs/<run-id>/`.

pub mod atomic;
mod collection;
mod provenance;
pub mod record;

pub use collection::{Collection, Stored, scan_all};

use crate::error::{Error, Result};
use crate::report::transform::{Colour, Strip};
use candle_core::{Device, Tensor};
use record::{FORMAT, Record, UnitTrace};
use serde::Serialize;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Names of the files of a run.
const RECORD: &str = "record.json";
const CELL: &str = "cell.toml";
const TRACE: &str = "trace.json";
const PREDICTIONS: &str = "predictions.safetensors";
const PICTURES: &str = "pictures.safetensors";
/// Prefix of folders that are being written; what a killed process left of them is ignored.
const TEMPORARY: &str = ".writing-";

/// Predicted class of each image, and its label, in the order of the splits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predictions {
    pub test: Vec<u32>,
    pub calib: Vec<u32>,
    pub test_labels: Vec<u32>,
    pub calib_labels: Vec<u32>,
    /// Positions of the calibration images in the pool; empty in files from before this was kept.
    pub calib_indices: Vec<u32>,
}

/// Some calibration images beside what a transform network made of them, `(N, C, H, W)`, normalised.
#[derive(Clone, Debug)]
pub struct Pictures {
    pub x: Tensor,
    pub t_x: Tensor,
}

impl Pictures {
    /// The pictures of the run in `folder`; `None` if it left none.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(PICTURES);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(Error::io("cannot read", &path))?;
        let mut tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|error| Error::content(&path, error.to_string()))?;
        match (tensors.remove("x"), tensors.remove("t_x")) {
            (Some(x), Some(t_x)) if x.shape() == t_x.shape() && x.rank() == 4 => Ok(Some(Self { x, t_x })),
            _ => Err(Error::content(&path, "no tensors x and t_x of one shape (N, C, H, W)".to_string())),
        }
    }

    /// Levels from 0 to 1, with `level = mean + std * pixel` of each channel.
    ///
    /// Errors: other than one or three channels, or another number of them than of means.
    pub fn strip(&self, mean: &[f64], std: &[f64]) -> Result<Strip> {
        let (_, channels, height, width) = self.x.dims4()?;
        if !matches!(channels, 1 | 3) || (mean.len(), std.len()) != (channels, channels) {
            let problem = format!("pictures of {channels} channels with {} means", mean.len());
            return Err(Error::Shape { op: "strip", problem });
        }
        let colours = |images: &Tensor| -> Result<Vec<Vec<Colour>>> {
            let planes = (0..3).map(|colour| -> Result<_> {
                let channel = colour.min(channels - 1);
                let plane = images.narrow(1, channel, 1)?.affine(std[channel], mean[channel])?;
                Ok(plane.flatten_from(1)?.to_vec2::<f32>()?)
            });
            let planes: Vec<Vec<Vec<f32>>> = planes.collect::<Result<_>>()?;
            let pixel = |image: usize, at: usize| [0, 1, 2].map(|colour| planes[colour][image][at]);
            Ok((0..images.dim(0)?).map(|image| (0..height * width).map(|at| pixel(image, at)).collect()).collect())
        };
        Ok(Strip { height, width, x: colours(&self.x)?, t_x: colours(&self.t_x)? })
    }

    fn to_safetensors(&self, run: &Path) -> Result<Vec<u8>> {
        safetensors::serialize([("x", &self.x), ("t_x", &self.t_x)], None)
            .map_err(|error| Error::content(run.join(PICTURES), error.to_string()))
    }
}

/// What a run leaves beside its record.
#[derive(Default)]
pub struct Artefacts<'a> {
    pub traces: &'a [UnitTrace],
    /// `None` if it failed.
    pub predictions: Option<&'a Predictions>,
    /// `None` without a transform network.
    pub pictures: Option<&'a Pictures>,
}

/// The runs of one experiment.
pub struct Store {
    runs: PathBuf,
    folder: PathBuf,
}

/// What a scan of a store found.
#[derive(Debug, Default)]
pub struct Scan {
    /// By run id.
    pub records: Vec<Record>,
    /// Folders that hold no readable record, and why.
    pub broken: Vec<(PathBuf, String)>,
}

impl Store {
    /// The store of `experiment` under `results`; nothing is created yet.
    pub fn new(results: &Path, experiment: &str) -> Self {
        let folder = results.join(experiment);
        Self { runs: folder.join("runs"), folder }
    }

    /// `results/<experiment>`, where tables and figures go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folders, checks that they can be written, and keeps other processes from writing runs of this
    /// experiment for as long as the returned file is open.
    pub fn lock(&self) -> Result<File> {
        std::fs::create_dir_all(&self.runs).map_err(Error::io("cannot make folder", &self.runs))?;
        let path = self.runs.join(".lock");
        let file = File::create(&path).map_err(Error::io("cannot write", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::Usage(format!(
                "another harness is running this experiment ({} is locked); wait for it, or give the grid another name",
                path.display()
            ))),
            Err(std::fs::TryLockError::Error(error)) => Err(Error::io("cannot lock", &path)(error)),
        }
    }

    /// Stores a run, replacing one of the same id: all its files appear at once, or none.
    pub fn write_run(&self, record: &Record, cell: &str, artefacts: &Artefacts) -> Result<()> {
        let target = self.runs.join(&record.run_id);
        let folder = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempdir_in(&self.runs)
            .map_err(Error::io("cannot write into", &self.runs))?;
        let write = |name: &str, content: &[u8]| atomic::write(&folder.path().join(name), content);
        write(CELL, cell.as_bytes())?;
        write(TRACE, &json(&target, &artefacts.traces)?)?;
        if let Some(predictions) = artefacts.predictions {
            write(PREDICTIONS, &predictions.to_safetensors(&target)?)?;
        }
        if let Some(pictures) = artefacts.pictures {
            write(PICTURES, &pictures.to_safetensors(&target)?)?;
        }
        write(RECORD, &json(&target, record)?)?;
        readable_by_all(folder.path()).map_err(Error::io("cannot set the mode of", &target))?;
        if target.exists() {
            // A folder cannot be renamed over a full one: the old run steps aside first and is removed last.
            let old = tempfile::Builder::new()
                .prefix(TEMPORARY)
                .tempdir_in(&self.runs)
                .map_err(Error::io("cannot write into", &self.runs))?;
            std::fs::rename(&target, old.path().join("old")).map_err(Error::io("cannot replace", &target))?;
            std::fs::rename(folder.keep(), &target).map_err(Error::io("cannot write", &target))?;
        } else {
            std::fs::rename(folder.keep(), &target).map_err(Error::io("cannot write", &target))?;
        }
        Ok(())
    }

    /// Every stored run.
    pub fn scan(&self) -> Result<Scan> {
        let mut scan = Scan::default();
        let entries = match std::fs::read_dir(&self.runs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(scan),
            Err(error) => return Err(Error::io("cannot read", &self.runs)(error)),
        };
        for entry in entries {
            let path = entry.map_err(Error::io("cannot read", &self.runs))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            match read_record(&path.join(RECORD)) {
                Ok(record) if record.run_id == name => scan.records.push(record),
                Ok(record) => scan.broken.push((path, format!("its record is of run {}", record.run_id))),
                Err(error) => scan.broken.push((path, error.to_string())),
            }
        }
        scan.records.sort_by(|a, b| a.run_id.cmp(&b.run_id));
        scan.broken.sort();
        Ok(scan)
    }

    /// Folder of run `id`.
    pub fn run_folder(&self, id: &str) -> PathBuf {
        self.runs.join(id)
    }
}

/// The loss traces of the run in `folder`.
pub fn read_traces(folder: &Path) -> Result<Vec<UnitTrace>> {
    let path = folder.join(TRACE);
    let bytes = std::fs::read(&path).map_err(Error::io("cannot read", &path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::content(&path, error.to_string()))
}

/// The store and record of the one run, over all experiments under `results`, whose id is or begins with `prefix`.
pub fn find(results: &Path, prefix: &str) -> Result<(Store, Record)> {
    let mut found = Vec::new();
    for experiment in experiments(results)? {
        let store = Store::new(results, &experiment);
        found.extend(
            store
                .scan()?
                .records
                .into_iter()
                .filter(|record| record.run_id.starts_with(prefix))
                .map(|record| (experiment.clone(), record)),
        );
    }
    if let Some(exact) = found.iter().position(|(_, record)| record.run_id == prefix) {
        found = vec![found.swap_remove(exact)];
    }
    match &found[..] {
        [(experiment, record)] => Ok((Store::new(results, experiment), record.clone())),
        [] => Err(Error::NothingMatched(format!(
            "no run under {} begins with {prefix:?}; `harness plan GRID` lists ids",
            results.display()
        ))),
        several => {
            let ids: Vec<&str> = several.iter().map(|(_, record)| record.run_id.as_str()).collect();
            Err(Error::Usage(format!("{prefix:?} is the beginning of {} runs: {}", ids.len(), ids.join(", "))))
        }
    }
}

fn experiments(results: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(results) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("cannot read", results)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("cannot read", results))?;
        if entry.path().join("runs").is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn read_record(path: &Path) -> Result<Record> {
    /// Read first, so that a newer format gets a better message than "missing field".
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    let bytes = std::fs::read(path).map_err(Error::io("cannot read", path))?;
    let broken = |error: serde_json::Error| Error::content(path, format!("not a complete record: {error}"));
    let version: Version = serde_json::from_slice(&bytes).map_err(broken)?;
    if version.format > FORMAT {
        let problem = format!("record format {}, but this harness knows {FORMAT}: use a newer harness", version.format);
        return Err(Error::content(path, problem));
    }
    serde_json::from_slice(&bytes).map_err(broken)
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
        let bytes = std::fs::read(&path).map_err(Error::io("cannot read", &path))?;
        let mut tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
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
