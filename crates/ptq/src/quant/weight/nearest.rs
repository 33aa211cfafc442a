//! Rounding to nearest, a half up: where learned roundings start, and all that is done to a weight that is not trained.
//!
//! Nothing is learned, scales included, so the quantized weight is computed once.

use super::{DualMode, Parameters, Rounding, WeightQuantizer, adaround, levels, per_channel, step, zero_points};
use crate::error::Result;
use crate::ops::dual::Dual;
use crate::ops::rounding::{Regulariser, SoftWeight, hard_weight};
use crate::quant::range_search::Range;
use candle_core::Tensor;

pub static NEAREST: Rounding = Rounding { parameters, soft, hard, step, dual, penalty };

/// Fixed: the quantized weight, AdaRound's hard one before it learns anything.
fn parameters(weight: &Tensor, ranges: &[Range], bits: u32) -> Result<Parameters> {
    let Parameters { fixed: floor, learned } = adaround::parameters(weight, ranges, bits)?;
    let scales = ranges.iter().map(|range| range.scale).collect();
    let scale = Tensor::from_vec(scales, per_channel(weight), weight.device())?;
    let fixed = hard_weight(&learned[0], &scale, &levels(&floor, &zero_points(ranges, weight)?, bits))?;
    Ok(Parameters { fixed, learned: Vec::new() })
}

fn soft(quantizer: &WeightQuantizer, _: Option<Regulariser>) -> Result<SoftWeight> {
    Ok(SoftWeight { weight: hard(quantizer)?, penalty: None })
}

fn hard(quantizer: &WeightQuantizer) -> Result<Tensor> {
    Ok(quantizer.fixed.to_dtype(quantizer.scale.dtype())?)
}

fn dual(quantizer: &WeightQuantizer, _: Option<&WeightQuantizer>, _: &DualMode) -> Result<Dual> {
    Ok(Dual::constant(hard(quantizer)?))
}

fn penalty(_: &WeightQuantizer, _: Option<&WeightQuantizer>, _: Regulariser) -> Result<Option<Dual>> {
    Ok(None)
}
