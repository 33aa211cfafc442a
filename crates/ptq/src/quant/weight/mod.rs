//! The quantizer of one weight: scales, and a rounding that can be learned.
//!
//! A [`Rounding`] is a file of this folder, a row of [`Rounding::of`], and a name that a recipe can give
//! ([`RoundingName`]).

mod adaround;
mod flexround;
mod integers;
mod nearest;

pub use integers::Integers;

use super::range_search::{Range, highest};
use crate::error::Result;
use crate::ops::dual::{Dual, Roundings};
use crate::ops::rounding::{Levels, Regulariser, SoftWeight};
use crate::recipe::RoundingName;
use candle_core::{DType, Tensor, Var};

/// How a weight is rounded to its levels.
#[derive(Debug)]
pub struct Rounding {
    /// What it starts from: for a weight `(C_out, ...)` and its ranges, one per output channel.
    pub parameters: fn(&Tensor, &[Range], u32) -> Result<Parameters>,
    /// The weight while the rounding is learned. Gradient (first order only): to what is learned, and to the scales where they can be.
    pub soft: fn(&WeightQuantizer, Option<Regulariser>) -> Result<SoftWeight>,
    /// The finished weight. No gradient.
    pub hard: fn(&WeightQuantizer) -> Result<Tensor>,
    /// The distance between neighbouring levels of the finished weight, one per output channel: what [`Self::hard`] multiplies whole
    /// numbers by.
    pub step: fn(&WeightQuantizer) -> Result<Tensor>,
    /// The weight of a pass, and its derivative when scales and learned tensors move along those of a second quantizer.
    pub dual: fn(&WeightQuantizer, Option<&WeightQuantizer>, &DualMode) -> Result<Dual>,
    /// The regulariser of `soft` as a dual number, where the rounding has one.
    pub penalty: fn(&WeightQuantizer, Option<&WeightQuantizer>, Regulariser) -> Result<Option<Dual>>,
}

impl Rounding {
    /// The rounding called `name`.
    pub fn of(name: RoundingName) -> &'static Rounding {
        match name {
            RoundingName::Adaround => &adaround::ADAROUND,
            RoundingName::Flexround => &flexround::FLEXROUND,
            RoundingName::Nearest => &nearest::NEAREST,
        }
    }
}

/// What a rounding starts from.
pub struct Parameters {
    /// What it keeps of the weight, of its shape; `f32`.
    pub fixed: Tensor,
    /// What it learns.
    pub learned: Vec<Tensor>,
}

/// How a weight takes part in a pass over values and tangents ([`crate::ops::dual`]).
pub struct DualMode<'a> {
    /// As while the rounding is learned; else as it is finished.
    pub soft: bool,
    /// Whether gradients flow to scales and learned tensors.
    pub learns: bool,
    pub roundings: &'a Roundings,
}

impl DualMode<'_> {
    pub fn parameter(&self, var: &Var) -> Tensor {
        if self.learns { var.as_tensor().clone() } else { var.as_detached_tensor() }
    }
}

/// Quantizes a weight to `scale * (q - zero_point)`, where `q` in 0 to `2^b - 1` is what its [`Rounding`] makes of the weight.
#[derive(Clone, Debug)]
pub struct WeightQuantizer {
    pub bits: u32,
    /// `(C_out, 1, ...)`: one per output channel, of the weight's rank.
    pub scale: Var,
    /// What the rounding learns: see its file.
    pub learned: Vec<Var>,
    pub rounding: &'static Rounding,
    /// What the rounding keeps of the weight, of its shape.
    fixed: Tensor,
    /// `(C_out)`.
    zero_point: Tensor,
}

impl WeightQuantizer {
    /// Starts from `ranges`, one per output channel of `weight`.
    pub fn new(weight: &Tensor, ranges: &[Range], bits: u32, rounding: RoundingName) -> Result<Self> {
        let rounding = Rounding::of(rounding);
        let Parameters { fixed, learned } = (rounding.parameters)(weight, ranges, bits)?;
        let scales = ranges.iter().map(|range| range.scale).collect();
        let scale = Tensor::from_vec(scales, per_channel(weight), weight.device())?;
        Ok(Self {
            bits,
            scale: Var::from_tensor(&scale)?,
            learned: learned.iter().map(Var::from_tensor).collect::<candle_core::Result<_>>()?,
            rounding,
            fixed,
            zero_point: zero_points(ranges, weight)?,
        })
    }

    /// What the scales and zero points are now, per output channel.
    pub fn ranges(&self) -> Result<Vec<Range>> {
        let scales = self.scale.flatten_all()?.to_vec1::<f32>()?;
        let zero_points = self.zero_point.to_vec1::<f32>()?;
        Ok(scales.into_iter().zip(zero_points).map(|(scale, zero_point)| Range { scale, zero_point }).collect())
    }

    /// A quantizer of its own with the same values, as `dtype`.
    pub fn copy(&self, dtype: DType) -> Result<Self> {
        let copy = |var: &Var| Var::from_tensor(&var.as_detached_tensor().copy()?.to_dtype(dtype)?);
        Ok(Self {
            scale: copy(&self.scale)?,
            learned: self.learned.iter().map(copy).collect::<candle_core::Result<_>>()?,
            ..self.clone()
        })
    }

    /// What the rounding keeps of the weight in the weight's shape, the zero points in the scale's, and the highest level.
    fn constants(&self) -> Result<(Tensor, Tensor, f64)> {
        let dtype = self.scale.dtype();
        let zero_point = self.zero_point.reshape(self.scale.shape())?.to_dtype(dtype)?;
        Ok((self.fixed.to_dtype(dtype)?, zero_point, f64::from(highest(self.bits))))
    }

    /// The weight while its rounding is learned, and the regulariser of the rounding if it has one.
    pub fn soft(&self, regulariser: Option<Regulariser>) -> Result<SoftWeight> {
        (self.rounding.soft)(self, regulariser)
    }

    /// The finished weight; no gradients.
    pub fn hard(&self) -> Result<Tensor> {
        (self.rounding.hard)(self)
    }
}

/// The scale itself, where nothing else is learned of it.
fn step(quantizer: &WeightQuantizer) -> Result<Tensor> {
    Ok(quantizer.scale.as_detached_tensor())
}

/// The shape of one number per output channel of `weight`.
fn per_channel(weight: &Tensor) -> Vec<usize> {
    let mut shape = vec![1; weight.rank()];
    shape[0] = weight.dims()[0];
    shape
}

/// `(C_out)`.
fn zero_points(ranges: &[Range], weight: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_iter(ranges.iter().map(|range| range.zero_point), weight.device())?)
}

/// The parts of a weight that AdaRound and rounding to nearest know: levels from `floor(W / scale_0)` on.
fn levels(floor: &Tensor, zero_point: &Tensor, bits: u32) -> Levels {
    Levels { floor: floor.clone(), zero_point: zero_point.clone(), highest: highest(bits) }
}
