//! What the `config.json` of a timm checkpoint prescribes for evaluation.

use super::{CardSize, CropMode, IMAGENET_MEAN, IMAGENET_STD, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::{Error, Result};
use serde::Deserialize;

/// The fields of [`TimmConfig`].
const FIELDS: [&str; 8] =
    ["input_size", "test_input_size", "mean", "std", "crop_pct", "test_crop_pct", "interpolation", "crop_mode"];

/// Fields of timm's `pretrained_cfg` that concern evaluation; `null` is as good as absent.
#[derive(Deserialize)]
struct TimmConfig {
    input_size: Option<[usize; 3]>,
    test_input_size: Option<[usize; 3]>,
    mean: Option<Vec<f64>>,
    std: Option<Vec<f64>>,
    crop_pct: Option<f64>,
    test_crop_pct: Option<f64>,
    interpolation: Option<String>,
    crop_mode: Option<String>,
}

impl Preprocess {
    /// What the `config.json` of a timm checkpoint prescribes for evaluation at its training or test size.
    ///
    /// `pretrained_cfg` (in old files the top level) gives `mean`, `std`, `input_size`, `crop_pct`, `interpolation` and
    /// `crop_mode`, and for [`CardSize::Test`] `test_input_size` and `test_crop_pct`, each of which falls back on the one
    /// for training; where one is absent timm's default holds. `resize = floor(input_size / crop_pct)`, as
    /// `timm.data.create_transform` computes it. `None`: the file is another library's, and says nothing of images.
    ///
    /// Errors: not such a file; a crop mode, interpolation or shape of input that is not implemented here.
    pub fn from_timm_config(json: &str, size: CardSize) -> Result<Option<Preprocess>> {
        let wrong = |problem: String| Error::content("config.json", problem);
        let config: serde_json::Value =
            serde_json::from_str(json).map_err(|error| wrong(format!("not JSON: {error}")))?;
        let is_old = FIELDS.iter().any(|field| config.get(field).is_some());
        let config = match config.get("pretrained_cfg") {
            Some(config) => config.clone(),
            None if is_old => config,
            None => return Ok(None),
        };
        let config: TimmConfig = serde_json::from_value(config)
            .map_err(|error| wrong(format!("its pretrained_cfg is not timm's: {error}")))?;
        config.preprocess(size).map(Some).map_err(wrong)
    }
}

impl TimmConfig {
    /// Errors: what of it is impossible or not implemented, as text.
    fn preprocess(self, size: CardSize) -> Result<Preprocess, String> {
        let (test_input_size, test_crop_pct) = match size {
            CardSize::Test => (self.test_input_size, self.test_crop_pct),
            CardSize::Train => (None, None),
        };
        let (size_key, input_size) = match test_input_size {
            Some(size) => ("test_input_size", size),
            None => ("input_size", self.input_size.unwrap_or([3, 224, 224])),
        };
        let (pct_key, crop_pct) = match test_crop_pct {
            Some(pct) => ("test_crop_pct", pct),
            None => ("crop_pct", self.crop_pct.unwrap_or(0.875)),
        };
        let interpolation = match self.interpolation.as_deref().unwrap_or("bicubic") {
            "bilinear" => Interpolation::Bilinear,
            "bicubic" => Interpolation::Bicubic,
            other => return Err(format!("interpolation {other:?} is neither bilinear nor bicubic")),
        };
        let crop_mode = match self.crop_mode.as_deref().unwrap_or("center") {
            "center" => CropMode::Center,
            "squash" => CropMode::Squash,
            "border" => CropMode::Border,
            other => return Err(format!("crop_mode {other:?} is none of center, squash and border")),
        };
        let [channels, height, width] = input_size;
        if height != width {
            return Err(format!("{size_key}: an input of {height} x {width} pixels is not square"));
        }
        if !(crop_pct > 0.0 && crop_pct <= 1.0) {
            return Err(format!("{pct_key} {crop_pct} is not above 0 and at most 1"));
        }
        let preprocess = Preprocess {
            resize: (height as f64 / crop_pct).floor() as usize,
            crop: (height, width),
            crop_mode,
            interpolation,
            mean: self.mean.unwrap_or_else(|| IMAGENET_MEAN.to_vec()),
            std: self.std.unwrap_or_else(|| IMAGENET_STD.to_vec()),
        };
        match preprocess.problem() {
            None if preprocess.channels() == channels => Ok(preprocess),
            None => Err(format!("{} means for {channels} channels", preprocess.channels())),
            Some(problem) => Err(problem),
        }
    }
}
