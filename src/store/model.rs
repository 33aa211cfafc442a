//! The quantized network of a run: `model.safetensors`, and `config.json`, which says what it is.
//!
//! What their tensors are is told in [`ptq::checkpoint`]. `config.json` has beside that description how images become the network's input,
//! the size and SHA-256 of the weights' file, and the run with its resolved cell and the hashes of its inputs: the two files are enough
//! to evaluate the network anywhere.

use super::read_if_there;
use crate::data::preprocess::Preprocess;
use crate::disk::foreign::read;
use crate::disk::sha256;
use crate::error::{Error, Result};
use crate::experiment::{Cell, Hashes};
use candle_core::{Device, Tensor};
use ptq::checkpoint::{Description, FORMAT, Saved, load};
use ptq::quant::model::QuantModel;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";

/// Whether the run in `folder` kept its network.
pub fn has_model(folder: &Path) -> bool {
    folder.join(CONFIG).exists() && folder.join(WEIGHTS).exists()
}

/// The two files as they are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFiles {
    pub config: String,
    #[serde(with = "base64_text")]
    pub weights: Vec<u8>,
}

/// `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// [`FORMAT`].
    pub format: u32,
    /// Name and version of what wrote it.
    pub made_by: String,
    pub weights: WeightsFile,
    pub network: Description,
    pub preprocess: Preprocess,
    pub run: RunOfModel,
}

/// The file beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsFile {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// The run that a network comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunOfModel {
    pub run_id: String,
    pub cell: Cell,
    pub hashes: Hashes,
    /// The data set on the Hub, with the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_source: Option<String>,
}

impl ModelFiles {
    /// Of `saved`, which takes images as `preprocess` makes them.
    pub fn new(saved: &Saved, preprocess: &Preprocess, run: RunOfModel) -> Result<Self> {
        let wrong = |error: String| Error::content(WEIGHTS, format!("the network cannot be written: {error}"));
        let weights = safetensors::serialize(&saved.tensors, None).map_err(|error| wrong(error.to_string()))?;
        let config = ModelConfig {
            format: FORMAT,
            made_by: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            weights: WeightsFile {
                name: WEIGHTS.to_string(),
                bytes: weights.len() as u64,
                sha256: sha256(&[&weights]),
            },
            network: saved.description.clone(),
            preprocess: preprocess.clone(),
            run,
        };
        let config = serde_json::to_string_pretty(&config).map_err(|error| wrong(error.to_string()))? + "\n";
        Ok(Self { config, weights })
    }

    /// Those in `folder`, unread; `None` if there are none.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(CONFIG);
        let (config, weights) = (read_if_there(&path)?, read_if_there(&folder.join(WEIGHTS))?);
        let (Some(config), Some(weights)) = (config, weights) else { return Ok(None) };
        let config = String::from_utf8(config).map_err(|error| Error::content(&path, error.to_string()))?;
        Ok(Some(Self { config, weights }))
    }
}

/// A network that was kept, its weights unaltered since.
#[derive(Debug)]
pub struct SavedModel {
    pub config: ModelConfig,
    /// Where it lies.
    pub folder: PathBuf,
    weights: Vec<u8>,
}

impl SavedModel {
    /// The network in the folder `path`, or of the file `model.safetensors` at `path`.
    ///
    /// Errors: none there; one of a newer format; a description that contradicts itself; weights of another size or SHA-256 than it says.
    pub fn open(path: &Path) -> Result<Self> {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
        let (path, weights_path) = (folder.join(CONFIG), folder.join(WEIGHTS));
        let Some(json) = read_if_there(&path)? else {
            let problem = "no network was kept here: `harness run --save-model` keeps those of the cells that it runs, with --fresh of \
                           those that are stored";
            return Err(Error::content(folder, problem));
        };
        let config = parse(&json).map_err(|problem| Error::content(&path, problem))?;
        let (bytes, wanted) = (size(&weights_path)?, config.weights.bytes);
        if bytes != wanted {
            let problem =
                format!("has {bytes} bytes, not the {wanted} that {CONFIG} says: it is cut short, or another's");
            return Err(Error::content(&weights_path, problem));
        }
        let weights = read("cannot read", &weights_path, wanted)?;
        let sha256 = sha256(&[&weights]);
        if sha256 != config.weights.sha256 {
            let problem = format!(
                "has SHA-256 {sha256}, not {}, which {CONFIG} says: it was altered; copy it again, or run the cell again",
                config.weights.sha256
            );
            return Err(Error::content(&weights_path, problem));
        }
        Ok(Self { config, folder: folder.to_path_buf(), weights })
    }

    /// Bytes of the weights' file.
    pub fn bytes(&self) -> u64 {
        self.weights.len() as u64
    }

    /// The network, on `device`.
    pub fn network(&self, device: &Device) -> Result<QuantModel> {
        let path = self.folder.join(WEIGHTS);
        let tensors: HashMap<String, Tensor> = candle_core::safetensors::load_buffer(&self.weights, &Device::Cpu)
            .map_err(|error| {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                Error::content(&path, format!("not a complete safetensors file ({first})"))
            })?;
        Ok(load(&self.config.network, tensors, &path.display().to_string(), device)?)
    }
}

/// Bytes of a file that must be there.
fn size(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).map_err(Error::io("cannot read", path))?.len())
}

/// The description of a network. Errors: what is wrong with it, as text.
fn parse(json: &[u8]) -> Result<ModelConfig, String> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let broken = |error: serde_json::Error| format!("not the description of a quantized network: {error}");
    let Version { format } = serde_json::from_slice(json).map_err(broken)?;
    if format != FORMAT {
        return Err(format!("format {format}, but this harness knows {FORMAT}: use a newer harness"));
    }
    let config: ModelConfig = serde_json::from_slice(json).map_err(broken)?;
    let (height, width) = config.preprocess.crop;
    let input = [config.preprocess.channels(), height, width];
    match config.preprocess.problem() {
        Some(problem) => Err(format!("preprocess: {problem}")),
        None if input != config.network.input => {
            Err(format!("preprocess makes images of {input:?}, but the network takes {:?}", config.network.input))
        }
        None => Ok(config),
    }
}

/// Bytes as text.
mod base64_text {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
