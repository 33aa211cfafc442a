//! A finished run as a message: its record, and what it leaves beside it.

use super::record::Record;
use super::{PREDICTIONS, Pictures, Predictions, read_log, read_run, read_traces};
use crate::error::{Error, Result};
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
    /// `None` without a transform network.
    pub pictures: Option<Pictures>,
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
            pictures: Pictures::read(folder)?,
            log: read_log(folder),
        };
        Ok(Self { record, artefacts })
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
