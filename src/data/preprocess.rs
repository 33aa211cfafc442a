//! From an image file to what a network was trained on: resize, crop, normalise.

mod timm;

use super::decode::Pixels;
use super::resize::{Interpolation, Window, resize};
use serde::{Deserialize, Serialize};

/// What comes between an image and the crop, as timm's `crop_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CropMode {
    /// The shorter side is resized; what is too long is cut off.
    #[default]
    Center,
    /// Both sides are resized, whatever becomes of the proportions.
    Squash,
    /// The longer side is resized; what is missing is filled with the mean.
    Border,
}

impl CropMode {
    fn is_center(&self) -> bool {
        *self == CropMode::Center
    }
}

/// Which of the two sizes that a timm checkpoint may describe is used: many networks are trained on smaller images than
/// they are tested on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CardSize {
    /// `test_input_size` and `test_crop_pct` where there are any, as timm's `validate.py` does.
    #[default]
    Test,
    /// `input_size` and `crop_pct`, as `validate.py --use-train-size`.
    Train,
}

impl CardSize {
    /// Whether it is the size that the card tests at.
    pub fn is_test(&self) -> bool {
        *self == CardSize::Test
    }
}

/// The steps, in order: the image is resized to `resize`, the middle cut out, levels normalised per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Preprocess {
    /// Pixels of the side that `crop_mode` names, before the crop.
    pub resize: usize,
    /// Height and width of the crop.
    pub crop: (usize, usize),
    #[serde(default, skip_serializing_if = "CropMode::is_center")]
    pub crop_mode: CropMode,
    pub interpolation: Interpolation,
    /// Per channel, in levels / 255.
    pub mean: Vec<f64>,
    pub std: Vec<f64>,
}

/// Pixels of the largest side of a crop, and of the side before it, that a configuration may ask for.
const LARGEST_CROP: usize = 1 << 12;
const LARGEST_RESIZE: usize = 1 << 16;

const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

impl Preprocess {
    /// The published ImageNet evaluation: 256, centre crop 224, bilinear (torchvision's reference scripts).
    pub fn imagenet() -> Self {
        Self {
            resize: 256,
            crop: (224, 224),
            crop_mode: CropMode::Center,
            interpolation: Interpolation::Bilinear,
            mean: IMAGENET_MEAN.to_vec(),
            std: IMAGENET_STD.to_vec(),
        }
    }

    /// Square images of `side` pixels as they are.
    pub fn unresized(side: usize, mean: &[f64], std: &[f64]) -> Self {
        let (mean, std) = (mean.to_vec(), std.to_vec());
        Self { resize: side, crop: (side, side), mean, std, ..Self::imagenet() }
    }

    /// Number of channels, 1 or 3.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// The steps as text that other steps do not have; part of what is hashed.
    pub fn identity(&self) -> String {
        let Self { resize, crop: (height, width), crop_mode, interpolation, mean, std } = self;
        let by = match interpolation {
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
        };
        let mode = match crop_mode {
            CropMode::Center => "",
            CropMode::Squash => " squash",
            CropMode::Border => " border",
        };
        format!("resize {resize} {by}, crop {height} {width}{mode}, mean {mean:?}, std {std:?}")
    }

    /// What makes these steps impossible.
    pub(crate) fn problem(&self) -> Option<String> {
        let (height, width) = self.crop;
        match () {
            () if !matches!(self.mean.len(), 1 | 3) => Some(format!("{} channels: neither 1 nor 3", self.mean.len())),
            () if self.std.len() != self.mean.len() => Some("mean and std differ in length".to_string()),
            () if self.std.iter().any(|std| !(std.is_finite() && *std > 0.0)) => {
                Some("a std that is not above 0".to_string())
            }
            () if self.mean.iter().any(|mean| !mean.is_finite()) => Some("a mean that is no number".to_string()),
            () if height == 0 || width == 0 => Some("an empty crop".to_string()),
            () if height.max(width) > LARGEST_CROP || self.resize > LARGEST_RESIZE => Some(format!(
                "a crop of {height} x {width} out of a side of {}: {LARGEST_CROP} and {LARGEST_RESIZE} pixels are the most",
                self.resize
            )),
            () if height.max(width) > self.resize => {
                Some(format!("a crop of {height} x {width} out of a side of {}", self.resize))
            }
            () => None,
        }
    }

    /// `image` resized and cropped; it must have as many channels as there are means.
    ///
    /// The crop begins at half of what is left, rounded to even, as in torchvision; a border at half of what is missing,
    /// rounded down, as in timm.
    pub fn cropped(&self, image: &Pixels) -> Pixels {
        let (height, width) = self.resized(image);
        let (crop_height, crop_width) = self.crop;
        let (shown_height, shown_width) = (crop_height.min(height), crop_width.min(width));
        let window = Window {
            top: half_to_even(height - shown_height),
            left: half_to_even(width - shown_width),
            height: shown_height,
            width: shown_width,
        };
        let shown = resize(image, (height, width), window, self.interpolation);
        match (shown_height, shown_width) == self.crop {
            true => shown,
            false => self.bordered(&shown),
        }
    }

    /// Height and width of the whole image before the crop.
    fn resized(&self, image: &Pixels) -> (usize, usize) {
        let (shorter, longer) = (image.height.min(image.width), image.height.max(image.width));
        match self.crop_mode {
            // As torchvision: rounded down.
            CropMode::Center => (self.resize * image.height / shorter, self.resize * image.width / shorter),
            CropMode::Squash => (self.resize, self.resize),
            CropMode::Border => {
                let ratio = longer as f64 / self.resize as f64;
                // timm fails where nothing would be left of an image: a row or column is.
                let side = |side: usize| ((side as f64 / ratio).round_ties_even() as usize).max(1);
                (side(image.height), side(image.width))
            }
        }
    }

    /// `image` in the middle of a crop of the colour of the mean.
    fn bordered(&self, image: &Pixels) -> Pixels {
        let (height, width) = self.crop;
        let (top, left) = ((height - image.height) / 2, (width - image.width) / 2);
        let fill: Vec<u8> = self.mean.iter().map(|mean| (255.0 * mean).round_ties_even() as u8).collect();
        let mut data = fill.repeat(height * width);
        for (y, row) in image.data.chunks_exact(image.width * image.channels).enumerate() {
            data[((top + y) * width + left) * image.channels..][..row.len()].copy_from_slice(row);
        }
        Pixels { data, ..image.sized(height, width) }
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

#[cfg(test)]
mod tests;
