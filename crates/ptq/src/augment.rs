//! Fixed augmentations of images, as alternatives to a transform network or on top of one.
//!
//! The augmented images join the calibration sample of every unit; they are drawn anew for each. The parameters are those
//! of MetaAug's comparison (table 3): rotation by up to 30 degrees, brightness and contrast by a factor of 0.5 to 2,
//! mix-up and cut-mix with uniform shares.

use crate::error::Result;
use crate::rng::Stream;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// One augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augmentation {
    /// Mirrors left and right with probability 1/2.
    Flip,
    /// `share * x + (1 - share) * other image`, `share` uniform in `[0, 1)` (arXiv 1710.09412 with alpha 1).
    Mixup,
    /// Pastes a rectangle of another image, of a uniform share of the area (arXiv 1905.04899 with alpha 1).
    Cutmix,
    /// By an angle uniform in -30 to 30 degrees, bilinear, the border continued.
    Rotation,
    /// Multiplies grey levels by a factor uniform in 0.5 to 2.
    Brightness,
    /// Moves grey levels away from the mean grey level of the image, or towards it, by such a factor.
    Contrast,
}

/// Largest angle of a rotation, in degrees.
const DEGREES: f64 = 30.0;
/// Range of the factors of brightness and contrast.
const FACTORS: (f64, f64) = (0.5, 2.0);

/// What normalised pixels are in grey levels from 0 to 1: `grey = mean + std * pixel`, per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    pub mean: Vec<f64>,
    pub std: Vec<f64>,
}

/// `images` `(N, C, H, W)`, normalised, with all of `augmentations` applied in order; random numbers are those of `stream`.
pub fn augmented(
    images: &Tensor,
    augmentations: &[Augmentation],
    normalisation: &Normalisation,
    stream: Stream,
) -> Result<Tensor> {
    let (n, c, h, w) = images.dims4()?;
    let mut pixels = images.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    for (position, augmentation) in augmentations.iter().enumerate() {
        let stream = stream.at(position as u64);
        let source = pixels.clone();
        let size = c * h * w;
        let partners = stream.named("partners").permutation(n);
        for (index, image) in pixels.chunks_mut(size).enumerate() {
            let draws = stream.at(index as u64);
            let partner = partners[index] as usize;
            let image = Image { pixels: image, channels: c, height: h, width: w };
            image.apply(*augmentation, &source[partner * size..][..size], normalisation, draws);
        }
    }
    Ok(Tensor::from_vec(pixels, (n, c, h, w), images.device())?.to_dtype(images.dtype())?)
}

struct Image<'a> {
    pixels: &'a mut [f32],
    channels: usize,
    height: usize,
    width: usize,
}

impl Image<'_> {
    fn apply(self, augmentation: Augmentation, partner: &[f32], normalisation: &Normalisation, draws: Stream) {
        let factor = FACTORS.0 + (FACTORS.1 - FACTORS.0) * draws.unit(0);
        match augmentation {
            Augmentation::Flip => {
                if draws.unit(0) < 0.5 {
                    self.pixels.chunks_mut(self.width).for_each(<[f32]>::reverse);
                }
            }
            Augmentation::Mixup => {
                let share = draws.unit(0) as f32;
                for (pixel, other) in self.pixels.iter_mut().zip(partner) {
                    *pixel = share * *pixel + (1.0 - share) * other;
                }
            }
            Augmentation::Cutmix => self.paste(partner, draws),
            Augmentation::Rotation => self.rotate((2.0 * draws.unit(0) - 1.0) * DEGREES.to_radians()),
            Augmentation::Brightness => self.blend(normalisation, factor, |_| 0.0),
            Augmentation::Contrast => {
                self.blend(normalisation, factor, |grey| grey.iter().sum::<f64>() / grey.len() as f64);
            }
        }
    }

    /// A rectangle around a uniform centre, cut off at the border, with the sides' ratio of the image.
    fn paste(self, partner: &[f32], draws: Stream) {
        let side = (1.0 - draws.unit(0)).sqrt();
        let span = |centre: f64, size: usize| {
            let half = (side * size as f64) / 2.0;
            let centre = centre * size as f64;
            ((centre - half).max(0.0) as usize, ((centre + half) as usize).min(size))
        };
        let ((top, bottom), (left, right)) = (span(draws.unit(1), self.height), span(draws.unit(2), self.width));
        for row in (0..self.channels).flat_map(|channel| (top..bottom).map(move |y| channel * self.height + y)) {
            let range = row * self.width + left..row * self.width + right.max(left);
            self.pixels[range.clone()].copy_from_slice(&partner[range]);
        }
    }

    fn rotate(self, angle: f64) {
        let (sin, cos) = angle.sin_cos();
        let (centre_y, centre_x) = ((self.height - 1) as f64 / 2.0, (self.width - 1) as f64 / 2.0);
        for plane in self.pixels.chunks_mut(self.height * self.width) {
            let source = plane.to_vec();
            let at = |y: f64, x: f64| {
                let y = y.clamp(0.0, (self.height - 1) as f64);
                let x = x.clamp(0.0, (self.width - 1) as f64);
                let (top, left) = (y.floor() as usize, x.floor() as usize);
                let (bottom, right) = ((top + 1).min(self.height - 1), (left + 1).min(self.width - 1));
                let (down, across) = (y - top as f64, x - left as f64);
                let pixel = |y: usize, x: usize| f64::from(source[y * self.width + x]);
                (1.0 - down) * ((1.0 - across) * pixel(top, left) + across * pixel(top, right))
                    + down * ((1.0 - across) * pixel(bottom, left) + across * pixel(bottom, right))
            };
            for (index, pixel) in plane.iter_mut().enumerate() {
                let (dy, dx) = ((index / self.width) as f64 - centre_y, (index % self.width) as f64 - centre_x);
                *pixel = at(centre_y + cos * dy - sin * dx, centre_x + sin * dy + cos * dx) as f32;
            }
        }
    }

    /// `base + factor * (grey - base)`, cut to 0 to 1, with `base` from the mean over channels of all grey levels.
    fn blend(self, normalisation: &Normalisation, factor: f64, base: impl Fn(&[f64]) -> f64) {
        let plane = self.height * self.width;
        let affine = |channel: usize| {
            let last = normalisation.mean.len() - 1;
            (normalisation.mean[channel.min(last)], normalisation.std[channel.min(last)])
        };
        let grey: Vec<f64> = self
            .pixels
            .iter()
            .enumerate()
            .map(|(index, &pixel)| {
                let (mean, std) = affine(index / plane);
                mean + std * f64::from(pixel)
            })
            .collect();
        let base = base(&grey);
        for (index, (pixel, grey)) in self.pixels.iter_mut().zip(grey).enumerate() {
            let (mean, std) = affine(index / plane);
            *pixel = (((base + factor * (grey - base)).clamp(0.0, 1.0) - mean) / std) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn normalisation() -> Normalisation {
        Normalisation { mean: vec![0.25], std: vec![0.5] }
    }

    /// Grey levels from 0 to 1, a different gradient per image.
    fn images() -> Tensor {
        let grey = (0..4 * 6 * 6).map(|i| ((i % 36) as f64 / 36.0 * f64::from(1 + i / 36) / 4.0 - 0.25) / 0.5);
        let grey: Vec<f32> = grey.map(|value| value as f32).collect();
        Tensor::from_vec(grey, (4, 1, 6, 6), &Device::Cpu).unwrap()
    }

    fn pixels(augmentations: &[Augmentation], seed: u64) -> Vec<f32> {
        let augmented = augmented(&images(), augmentations, &normalisation(), Stream::new(seed)).unwrap();
        augmented.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn each_augmentation_changes_images_within_the_range_of_grey_levels_and_repeats_itself() {
        use Augmentation::{Brightness, Contrast, Cutmix, Flip, Mixup, Rotation};
        let original = pixels(&[], 0);
        for augmentation in [Flip, Mixup, Cutmix, Rotation, Brightness, Contrast] {
            let changed = pixels(&[augmentation], 1);
            assert_ne!(changed, original, "{augmentation:?}");
            assert_eq!(changed, pixels(&[augmentation], 1), "{augmentation:?}");
            assert_ne!(changed, pixels(&[augmentation], 2), "{augmentation:?}");
            assert!(changed.iter().all(|pixel| (-0.5001..=1.5001).contains(pixel)), "{augmentation:?}");
        }
    }

    #[test]
    fn a_flipped_image_is_the_original_read_backwards() {
        let (original, flipped) = (pixels(&[], 0), pixels(&[Augmentation::Flip], 5));
        for (original, flipped) in original.chunks(36).zip(flipped.chunks(36)) {
            let mirrored: Vec<f32> = original.chunks(6).flat_map(|row| row.iter().rev().copied()).collect();
            assert!(flipped == original || flipped == mirrored);
        }
    }

    #[test]
    fn constant_images_survive_rotation_and_contrast() {
        let constant = Tensor::full(0.3f32, (2, 1, 5, 5), &Device::Cpu).unwrap();
        for augmentation in [Augmentation::Rotation, Augmentation::Contrast] {
            let changed = augmented(&constant, &[augmentation], &normalisation(), Stream::new(1)).unwrap();
            let change = (changed - &constant).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(change < 1e-6, "{augmentation:?}: {change}");
        }
    }
}
