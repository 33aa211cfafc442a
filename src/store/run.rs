//! A finished run as a message: its record, and what it leaves beside it.

use super::model::ModelFiles;
use super::record::Record;
use super::{
    PREDICTIONS, Pictures, Predictions, TRANSFORM, read_if_there, read_layers, read_log, read_run, read_traces,
};
use crate::error::{Error, Result};
use ptq::quant::diagnosis::Diagnosis;
use ptq::recon::trace::UnitTrace;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A run that has ended, done or failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub record: Record,
    pub artefacts: Artefacts,
}

/// What a run leaves beside its record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Artefacts {
    pub traces: Vec<UnitTrace>,
    /// `None` if it failed.
    pub predictions: Option<Predictions>,
    /// What quantizing did to each layer; `None` if it failed, and in runs from before this was kept.
    #[serde(default)]
    pub layers: Option<Diagnosis>,
    /// `None` without a transform network.
    pub pictures: Option<Pictures>,
    /// The quantized network, where it was to be kept.
    pub model: Option<ModelFiles>,
    /// The transform network as safetensors, where there is one and it was to be kept.
    #[serde(default, with = "base64_text")]
    pub transform: Option<Vec<u8>>,
    /// What happened when, as text.
    pub log: Option<String>,
}

impl Run {
    /// The run in `folder`, as [`write_run`](super::Store::write_run) leaves it. Errors: a file that is missing or damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let record = read_run(folder).map_err(|problem| Error::content(folder, problem))?;
        let has_predictions = folder.join(PREDICTIONS).exists();
        let artefacts = Artefacts {
            traces: read_traces(folder)?,
            predictions: has_predictions.then(|| Predictions::read(folder)).transpose()?,
            layers: read_layers(folder)?,
            pictures: Pictures::read(folder)?,
            model: ModelFiles::read(folder)?,
            transform: read_if_there(&folder.join(TRANSFORM))?,
            log: read_log(folder),
        };
        Ok(Self { record, artefacts })
    }
}

/// Bytes that may be missing, as text.
mod base64_text {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(|bytes| BASE64_STANDARD.encode(bytes)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text: Option<String> = Deserialize::deserialize(deserializer)?;
        text.map(|text| BASE64_STANDARD.decode(text).map_err(de::Error::custom)).transpose()
    }
}

/// A tensor of f32 as its shape and values.
pub(super) mod values {
    use candle_core::{DType, Device, Result, Tensor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    pub fn serialize<S: Serializer>(tensor: &Tensor, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let values = || -> Result<Vec<f32>> { tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1() };
        (tensor.dims(), values().map_err(ser::Error::custom)?).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Tensor, D::Error> {
        let (shape, values): (Vec<usize>, Vec<f32>) = Deserialize::deserialize(deserializer)?;
        Tensor::from_vec(values, shape, &Device::Cpu).map_err(de::Error::custom)
    }
}
