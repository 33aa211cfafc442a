//! The transform network that a run keeps: `transform.safetensors`, tensors by the names of its parameters and running statistics.
//!
//! The head of the file says (`metaaug` in its metadata, as JSON) which run it is of, and the SHA-256 of all that follows the head. What
//! network it is stands in `config.json` of the quantized network beside it, with the rest of the cell.

use super::TRANSFORM;
use super::model::{CONFIG, SavedModel};
use crate::disk::foreign::{LARGEST_OF_RUN, read};
use crate::disk::sha256;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use ptq::meta::nets::{TransformNet, too_small};
use ptq::rng::Stream;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The key of what the file says of itself.
const ABOUT: &str = "metaaug";

/// What the file says of itself.
#[derive(Serialize, Deserialize)]
struct About {
    run_id: String,
    sha256: String,
}

/// The file's content for the network of run `run_id`.
pub fn transform_file(tensors: &HashMap<String, Tensor>, run_id: &str) -> Result<Vec<u8>> {
    let wrong = |error: String| Error::Usage(format!("the transform network cannot be written: {error}"));
    let file = |about: Option<HashMap<String, String>>| {
        safetensors::serialize(tensors, about).map_err(|error| wrong(error.to_string()))
    };
    let bare = file(None)?;
    let sha256 = sha256(&[body(&bare).ok_or_else(|| wrong("it has no head".to_string()))?]);
    let about = About { run_id: run_id.to_string(), sha256 };
    let about = serde_json::to_string(&about).map_err(|error| wrong(error.to_string()))?;
    file(Some([(ABOUT.to_string(), about)].into()))
}

/// What follows the head of a file.
fn body(file: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(u64::from_le_bytes(file.get(..8)?.try_into().ok()?)).ok()?;
    file.get(length.checked_add(8)?..)
}

/// A transform network as a run left it.
pub struct SavedTransform {
    pub net: TransformNet,
    /// Of its tensors; `None` in a file from before this was kept.
    pub sha256: Option<String>,
}

impl SavedTransform {
    /// That of the run that left `model`, on `device`.
    ///
    /// Errors: no network was kept; a file that is cut short, altered, or another network's.
    pub fn open(model: &SavedModel, device: &Device) -> Result<Self> {
        let (folder, run_id) = (&model.folder, &model.config.run.run_id);
        let path = folder.join(TRANSFORM);
        if !path.exists() {
            let problem = "holds no transform network; `harness run GRID --save-model --save-transform` keeps those of cells with one";
            return Err(Error::content(folder, problem));
        }
        let bytes = read("cannot read", &path, LARGEST_OF_RUN)?;
        let sha256 = verified(&bytes, run_id).map_err(|problem| Error::content(&path, problem))?;
        let net = untrained(model, device)?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        let own = net.parameters.tensors()?;
        let more = tensors.keys().find(|name| !own.contains_key(*name)).map(|name| format!("it has no {name}"));
        let loaded = more.map_or_else(|| net.parameters.load(&tensors).map_err(|error| error.to_string()), Err);
        match loaded {
            Ok(()) => Ok(Self { net, sha256 }),
            Err(problem) => {
                let problem = format!("is not the network {} of {CONFIG}: {problem}", net.config.net.0.name);
                Err(Error::content(&path, problem))
            }
        }
    }
}

/// The network beside `model` before anything is known of its parameters.
fn untrained(model: &SavedModel, device: &Device) -> Result<TransformNet> {
    let of_config = |problem: String| Error::content(model.folder.join(CONFIG), problem);
    let (cell, [channels, height, width]) = (&model.config.run.cell, model.config.network.input);
    let Some(config) = &cell.transform else {
        return Err(of_config(format!("its cell has no transform network, though {TRANSFORM} lies beside it")));
    };
    cell.check_bounds().map_err(|(key, problem)| of_config(format!("run.cell.{key}: {problem}")))?;
    if let Some(problem) = too_small(config, height, width) {
        return Err(of_config(format!("run.cell.transform.depth: {problem}")));
    }
    Ok(TransformNet::new(config, channels, Stream::new(0), DType::F32, device)?)
}

/// The SHA-256 that the file names and has. Errors: what is wrong with it, as text.
fn verified(bytes: &[u8], run_id: &str) -> Result<Option<String>, String> {
    let incomplete = |error: safetensors::SafeTensorError| format!("not a complete safetensors file ({error})");
    // Also that the head fits what follows.
    SafeTensors::deserialize(bytes).map_err(incomplete)?;
    let (_, head) = SafeTensors::read_metadata(bytes).map_err(incomplete)?;
    let Some(about) = head.metadata().as_ref().and_then(|about| about.get(ABOUT)) else { return Ok(None) };
    let about: About = serde_json::from_str(about).map_err(|error| format!("its head says of itself {error}"))?;
    if about.run_id != run_id {
        return Err(format!("it is of run {}, not of {run_id}", about.run_id));
    }
    let own = sha256(&[body(bytes).unwrap_or_default()]);
    match own == about.sha256 {
        true => Ok(Some(own)),
        false => Err(format!(
            "its tensors have SHA-256 {own}, not {}, which its head says: it was altered; copy it again, or run the cell again",
            about.sha256
        )),
    }
}
