//! Stored pictures as bytes of pixels.

use super::{Pictures, Stored};
use crate::error::Result;
use candle_core::{DType, Tensor};
use ptq::augment::Normalisation;

/// Images beside their transforms: 8 bits per channel, pixels row by row, the channels of a pixel together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PixelPairs {
    pub height: usize,
    pub width: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    pub x: Vec<Vec<u8>>,
    pub t_x: Vec<Vec<u8>>,
}

impl Pictures {
    /// `255 * (mean + std * pixel)` per channel, rounded and cut to 0 to 255. Errors: other than 1 or 3 channels; fewer
    /// means than channels.
    pub fn pixels(&self, normalisation: &Normalisation) -> Result<PixelPairs> {
        let (_, channels, height, width) = self.x.dims4()?;
        let known = normalisation.mean.len().min(normalisation.std.len());
        if !matches!(channels, 1 | 3) || known < channels {
            let problem = format!("{channels} channels, but means of {known}: 1 or 3 can be shown");
            return Err(ptq::Error::Shape { op: "pictures", problem }.into());
        }
        let bytes = |images: &Tensor| -> Result<Vec<Vec<u8>>> {
            let images = images.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2::<f32>()?;
            let area = height * width;
            let byte = |image: &[f32], index: usize| {
                let (pixel, channel) = (index / channels, index % channels);
                let value = f64::from(image[channel * area + pixel]);
                let level = normalisation.mean[channel] + normalisation.std[channel] * value;
                // A cast of a float to an integer saturates, and takes NaN for 0.
                (255.0 * level).round() as u8
            };
            Ok(images.iter().map(|image| (0..channels * area).map(|index| byte(image, index)).collect()).collect())
        };
        Ok(PixelPairs { height, width, channels, x: bytes(&self.x)?, t_x: bytes(&self.t_x)? })
    }
}

impl PixelPairs {
    /// The pictures that `run` left, if any.
    pub fn read(run: &Stored) -> Result<Option<Self>> {
        let Some(pictures) = Pictures::read(&run.folder)? else { return Ok(None) };
        let normalisation = run.preprocess().map_or_else(
            || Normalisation { mean: vec![0.0; 3], std: vec![1.0; 3] },
            |preprocess| Normalisation { mean: preprocess.mean, std: preprocess.std },
        );
        pictures.pixels(&normalisation).map(Some)
    }

    /// `128 + (t_x - x) / 2`: grey where nothing changed.
    pub fn difference(&self) -> Vec<Vec<u8>> {
        let byte = |(x, t): (&u8, &u8)| (128 + (i32::from(*t) - i32::from(*x)) / 2) as u8;
        let image = |(x, t): (&Vec<u8>, &Vec<u8>)| x.iter().zip(t).map(byte).collect();
        self.x.iter().zip(&self.t_x).map(image).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn channels_are_interleaved_scaled_and_cut() {
        let x: Vec<f32> = vec![0.0, 1.0, -1.0, 9.0, f32::NAN, 0.5];
        let x = Tensor::from_vec(x, (1, 3, 1, 2), &Device::Cpu).unwrap();
        let pictures = Pictures { t_x: x.zeros_like().unwrap(), x };
        let normalisation = Normalisation { mean: vec![0.5, 0.5, 0.0], std: vec![0.2, 0.5, 1.0] };
        let pixels = pictures.pixels(&normalisation).unwrap();
        assert_eq!(pixels.x, [[128, 0, 0, 179, 255, 128]]);
        assert_eq!(pixels.t_x, [[128, 128, 0, 128, 128, 0]]);
        assert_eq!(pixels.difference(), [[128, 192, 128, 103, 65, 64]]);
        let grey = Normalisation { mean: vec![0.5], std: vec![0.2] };
        assert!(pictures.pixels(&grey).unwrap_err().to_string().contains("3 channels, but means of 1"));
    }
}
