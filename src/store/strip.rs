//! Stored pictures as colours, to be drawn.

use super::Pictures;
use crate::error::Result;
use candle_core::Tensor;

/// Red, green and blue from 0 to 1.
pub type Colour = [f32; 3];

/// Images beside their transforms, rows one after the other.
pub struct Strip {
    pub height: usize,
    pub width: usize,
    pub x: Vec<Vec<Colour>>,
    pub t_x: Vec<Vec<Colour>>,
}

impl Strip {
    /// Reduced in both directions by a whole `factor`, each pixel the mean of those that it replaces.
    pub fn reduced(&self, factor: usize) -> Strip {
        let (height, width) = ((self.height / factor).max(1), (self.width / factor).max(1));
        let mean = |image: &Vec<Colour>, y: usize, x: usize| {
            let (rows, columns) = (factor.min(self.height), factor.min(self.width));
            let block =
                (0..rows * columns).map(|i| image[(y * rows + i / columns) * self.width + x * columns + i % columns]);
            block.fold([0.0; 3], |sum, colour| [0, 1, 2].map(|c| sum[c] + colour[c] / (rows * columns) as f32))
        };
        let reduce = |images: &[Vec<Colour>]| {
            let image = |image| (0..height * width).map(|at| mean(image, at / width, at % width)).collect();
            images.iter().map(image).collect()
        };
        Strip { height, width, x: reduce(&self.x), t_x: reduce(&self.t_x) }
    }
}

impl Pictures {
    /// Levels from 0 to 1, with `level = mean + std * pixel` of each channel.
    ///
    /// Errors: other than one or three channels, or another number of them than of means.
    pub fn strip(&self, mean: &[f64], std: &[f64]) -> Result<Strip> {
        let (_, channels, height, width) = self.x.dims4()?;
        if !matches!(channels, 1 | 3) || (mean.len(), std.len()) != (channels, channels) {
            let problem = format!("pictures of {channels} channels with {} means", mean.len());
            return Err(ptq::Error::Shape { op: "strip", problem }.into());
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
}
