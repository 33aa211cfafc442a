//! The quantizer of one weight: scales, and a rounding that can be learned.

use super::range_search::{Range, highest};
use crate::error::Result;
use crate::ops::rounding::{Levels, Regulariser, SoftWeight, hard_weight, inverse_stretched_sigmoid, soft_weight};
use candle_core::{DType, Tensor, Var};

/// Quantizes a weight to `scale * (clip(floor(W / scale_0) + h + zero_point, 0, 2^b - 1) - zero_point)`.
///
/// `h` is soft (AdaRound's function of `alpha`) while the rounding is learned and `alpha >= 0` afterwards; it starts at
/// the fractional part of `W / scale_0`, so that the hard weight starts as rounding to nearest.
#[derive(Clone, Debug)]
pub struct WeightQuantizer {
    pub bits: u32,
    /// `(C_out, 1, ...)`: one per output channel, of the weight's rank.
    pub scale: Var,
    /// The rounding logits, of the weight's shape.
    pub alpha: Var,
    levels: Levels,
}

impl WeightQuantizer {
    /// Starts from `ranges`, one per output channel of `weight`.
    pub fn new(weight: &Tensor, ranges: &[Range], bits: u32) -> Result<Self> {
        let values = weight.flatten_all()?.to_vec1::<f32>()?;
        let per_channel = values.len() / ranges.len();
        let (mut floor, mut alpha) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
        for (channel, range) in values.chunks(per_channel).zip(ranges) {
            for &value in channel {
                let level = value / range.scale;
                floor.push(level.floor());
                alpha.push(inverse_stretched_sigmoid(level - level.floor()));
            }
        }
        let mut scale_shape = vec![1; weight.rank()];
        scale_shape[0] = ranges.len();
        let levels = Levels {
            floor: Tensor::from_vec(floor, weight.shape(), weight.device())?,
            zero_point: Tensor::from_iter(ranges.iter().map(|range| range.zero_point), weight.device())?,
            highest: highest(bits),
        };
        let scales = ranges.iter().map(|range| range.scale).collect();
        Self::from_parts(
            bits,
            Tensor::from_vec(scales, scale_shape, weight.device())?,
            Tensor::from_vec(alpha, weight.shape(), weight.device())?,
            levels,
        )
    }

    /// What the scales and zero points are now, per output channel.
    pub fn ranges(&self) -> Result<Vec<Range>> {
        let scales = self.scale.flatten_all()?.to_vec1::<f32>()?;
        let zero_points = self.levels.zero_point.to_vec1::<f32>()?;
        Ok(scales.into_iter().zip(zero_points).map(|(scale, zero_point)| Range { scale, zero_point }).collect())
    }

    pub(crate) fn from_parts(bits: u32, scale: Tensor, alpha: Tensor, levels: Levels) -> Result<Self> {
        Ok(Self { bits, scale: Var::from_tensor(&scale)?, alpha: Var::from_tensor(&alpha)?, levels })
    }

    /// A quantizer of its own with the same values, as `dtype`.
    pub fn copy(&self, dtype: DType) -> Result<Self> {
        let copy = |var: &Var| var.as_detached_tensor().copy()?.to_dtype(dtype);
        Self::from_parts(self.bits, copy(&self.scale)?, copy(&self.alpha)?, self.levels.clone())
    }

    /// `floor(W / scale_0)` in the weight's shape, the zero points in the scale's, and the highest level.
    pub fn constants(&self) -> Result<(Tensor, Tensor, f64)> {
        let Levels { floor, zero_point, highest } = &self.levels;
        let tensor = |values: &Tensor, like: &Var| values.reshape(like.shape())?.to_dtype(like.dtype());
        Ok((tensor(floor, &self.alpha)?, tensor(zero_point, &self.scale)?, f64::from(*highest)))
    }

    /// The soft weight; gradients flow to logits and scales.
    pub fn soft(&self, regulariser: Option<Regulariser>) -> Result<SoftWeight> {
        Ok(soft_weight(&self.alpha, &self.scale, &self.levels, regulariser)?)
    }

    /// The hard weight, `h = (alpha >= 0)`; no gradients.
    pub fn hard(&self) -> Result<Tensor> {
        Ok(hard_weight(&self.alpha, &self.scale, &self.levels)?)
    }
}
