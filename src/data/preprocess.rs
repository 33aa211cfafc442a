//! From an image file to what a network was trained on: resize, crop, normalise.

use super::decode::Pixels;
use super::resize::{Interpolation, Window, resize};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The steps, in order: the shorter side is resized to `resize`, the middle cut out, levels normalised per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Preprocess {
    /// Pixels of the shorter side before the crop.
    pub resize: usize,
    /// Height and width of the crop.
    pub crop: (usize, usize),
    pub interpolation: Interpolation,
    /// Per channel, in levels / 255.
    pub mean: Vec<f64>,
    pub std: Vec<f64>,
}

const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

impl Preprocess {
    /// The published ImageNet evaluation: 256, centre crop 224, bilinear (torchvision's reference scripts).
    pub fn imagenet() -> Self {
        Self {
            resize: 256,
            crop: (224, 224),
            interpolation: Interpolation::Bilinear,
            mean: IMAGENET_MEAN.to_vec(),
            std: IMAGENET_STD.to_vec(),
        }
    }

    /// Square images of `side` pixels as they are.
    pub fn unresized(side: usize, mean: &[f64], std: &[f64]) -> Self {
        let (mean, std) = (mean.to_vec(), std.to_vec());
        Self { resize: side, crop: (side, side), interpolation: Interpolation::Bilinear, mean, std }
    }

    /// What the `config.json` of a timm checkpoint prescribes for evaluation.
    ///
    /// `pretrained_cfg` (in old files the top level) gives `mean`, `std`, `input_size`, `crop_pct`, `interpolation` and
    /// `crop_mode`; where one is absent timm's default holds. `resize = floor(input_size / crop_pct)`, as
    /// `timm.data.create_transform` computes it. `None`: the file is another library's, and says nothing of images.
    ///
    /// Errors: not such a file; a crop mode, interpolation or shape of input that is not implemented here.
    pub fn from_timm_config(json: &str) -> Result<Option<Preprocess>> {
        let wrong = |problem: String| Error::content("config.json", problem);
        let config: serde_json::Value =
            serde_json::from_str(json).map_err(|error| wrong(format!("not JSON: {error}")))?;
        let is_old = TIMM_FIELDS.iter().any(|field| config.get(field).is_some());
        let config = match config.get("pretrained_cfg") {
            Some(config) => config.clone(),
            None if is_old => config,
            None => return Ok(None),
        };
        let config: TimmConfig = serde_json::from_value(config)
            .map_err(|error| wrong(format!("its pretrained_cfg is not timm's: {error}")))?;
        let [channels, height, width] = config.input_size;
        let interpolation = match config.interpolation.as_str() {
            "bilinear" => Interpolation::Bilinear,
            "bicubic" => Interpolation::Bicubic,
            other => return Err(wrong(format!("interpolation {other:?} is neither bilinear nor bicubic"))),
        };
        if config.crop_mode != "center" {
            return Err(wrong(format!("crop_mode {:?} is not \"center\"", config.crop_mode)));
        }
        if height != width {
            return Err(wrong(format!("an input of {height} x {width} pixels is not square")));
        }
        if !(config.crop_pct > 0.0 && config.crop_pct <= 1.0) {
            return Err(wrong(format!("crop_pct {} is not above 0 and at most 1", config.crop_pct)));
        }
        let preprocess = Self {
            resize: (height as f64 / config.crop_pct).floor() as usize,
            crop: (height, width),
            interpolation,
            mean: config.mean,
            std: config.std,
        };
        match preprocess.problem() {
            None if preprocess.channels() == channels => Ok(Some(preprocess)),
            None => Err(wrong(format!("{} means for {channels} channels", preprocess.channels()))),
            Some(problem) => Err(wrong(problem)),
        }
    }

    /// Number of channels, 1 or 3.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// The steps as text that other steps do not have; part of what is hashed.
    pub fn identity(&self) -> String {
        let Self { resize, crop: (height, width), interpolation, mean, std } = self;
        let by = match interpolation {
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
        };
        format!("resize {resize} {by}, crop {height} {width}, mean {mean:?}, std {std:?}")
    }

    /// What makes these steps impossible.
    fn problem(&self) -> Option<String> {
        let (height, width) = self.crop;
        match () {
            () if !matches!(self.mean.len(), 1 | 3) => Some(format!("{} channels: neither 1 nor 3", self.mean.len())),
            () if self.std.len() != self.mean.len() => Some("mean and std differ in length".to_string()),
            () if self.std.iter().any(|std| !(std.is_finite() && *std > 0.0)) => {
                Some("a std that is not above 0".to_string())
            }
            () if self.mean.iter().any(|mean| !mean.is_finite()) => Some("a mean that is no number".to_string()),
            () if height == 0 || width == 0 => Some("an empty crop".to_string()),
            () if height.max(width) > self.resize => {
                Some(format!("a crop of {height} x {width} out of a side of {}", self.resize))
            }
            () => None,
        }
    }

    /// `image` resized and cropped; it must have as many channels as there are means.
    ///
    /// The longer side becomes `floor(resize * longer / shorter)` and the crop begins at half of what is left, rounded to
    /// even, as in torchvision.
    pub fn cropped(&self, image: &Pixels) -> Pixels {
        let shorter = image.height.min(image.width);
        let side = |side: usize| self.resize * side / shorter;
        let (height, width) = (side(image.height), side(image.width));
        let (crop_height, crop_width) = self.crop;
        let window = Window {
            top: half_to_even(height - crop_height),
            left: half_to_even(width - crop_width),
            height: crop_height,
            width: crop_width,
        };
        resize(image, (height, width), window, self.interpolation)
    }

    /// `(level / 255 - mean) / std` of the cropped image, `(C, H, W)`.
    pub fn apply(&self, image: &Pixels) -> Vec<f32> {
        let cropped = self.cropped(image);
        let channel = |channel: usize| {
            let (mean, std) = (self.mean[channel] as f32, self.std[channel] as f32);
            let levels = cropped.data.iter().skip(channel).step_by(cropped.channels);
            levels.map(move |level| (f32::from(*level) / 255.0 - mean) / std)
        };
        (0..cropped.channels).flat_map(channel).collect()
    }
}

/// `n / 2` rounded as Python's `round`: halves to the even neighbour.
fn half_to_even(n: usize) -> usize {
    let half = n / 2;
    if n % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

/// The fields of [`TimmConfig`].
const TIMM_FIELDS: [&str; 6] = ["input_size", "mean", "std", "crop_pct", "interpolation", "crop_mode"];

/// Fields of timm's `pretrained_cfg` that concern evaluation, with timm's defaults.
#[derive(Deserialize)]
struct TimmConfig {
    #[serde(default = "TimmConfig::input_size")]
    input_size: [usize; 3],
    #[serde(default = "TimmConfig::mean")]
    mean: Vec<f64>,
    #[serde(default = "TimmConfig::std")]
    std: Vec<f64>,
    #[serde(default = "TimmConfig::crop_pct")]
    crop_pct: f64,
    #[serde(default = "TimmConfig::interpolation")]
    interpolation: String,
    #[serde(default = "TimmConfig::crop_mode")]
    crop_mode: String,
}

impl TimmConfig {
    fn input_size() -> [usize; 3] {
        [3, 224, 224]
    }

    fn mean() -> Vec<f64> {
        IMAGENET_MEAN.to_vec()
    }

    fn std() -> Vec<f64> {
        IMAGENET_STD.to_vec()
    }

    fn crop_pct() -> f64 {
        0.875
    }

    fn interpolation() -> String {
        "bicubic".to_string()
    }

    fn crop_mode() -> String {
        "center".to_string()
    }
}

#[cfg(test)]
mod tests;
