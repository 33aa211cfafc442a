//! Rounding up or down, softly while it is learned (AdaRound, arXiv 2004.10568, section 3.2), with scales that can be learned beside it
//! (Genie, arXiv 2212.04780).
//!
//! `q = clip(floor(W / scale_0) + h + zero_point, 0, 2^b - 1)` with `h = clip(1.2 sigmoid(alpha) - 0.1, 0, 1)`, in the end
//! `h = (alpha >= 0)`. Learned: `alpha`, of the weight's shape; it starts where `h` is the fractional part of `W / scale_0`, so that the
//! hard weight starts as rounding to nearest.

use super::{DualMode, Parameters, Rounding, WeightQuantizer, levels, step};
use crate::error::Result;
use crate::ops::dual::{Dual, Roundings, sum};
use crate::ops::rounding::{Levels, Regulariser, SoftWeight, hard_weight, inverse_stretched_sigmoid, soft_weight};
use crate::quant::range_search::Range;
use candle_core::{DType, Tensor, Var};

pub static ADAROUND: Rounding = Rounding { parameters, soft, hard, step, dual, penalty };

/// Fixed: `floor(W / scale_0)`; learned: `alpha`.
pub fn parameters(weight: &Tensor, ranges: &[Range], _bits: u32) -> Result<Parameters> {
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
    let tensor = |values: Vec<f32>| Tensor::from_vec(values, weight.shape(), weight.device());
    Ok(Parameters { fixed: tensor(floor)?, learned: vec![tensor(alpha)?] })
}

fn alpha(quantizer: &WeightQuantizer) -> &Var {
    &quantizer.learned[0]
}

fn own_levels(quantizer: &WeightQuantizer) -> Levels {
    levels(&quantizer.fixed, &quantizer.zero_point, quantizer.bits)
}

fn soft(quantizer: &WeightQuantizer, regulariser: Option<Regulariser>) -> Result<SoftWeight> {
    Ok(soft_weight(alpha(quantizer), &quantizer.scale, &own_levels(quantizer), regulariser)?)
}

fn hard(quantizer: &WeightQuantizer) -> Result<Tensor> {
    // The operation is of `f32`; a copy for checks in `f64` is computed as its duals are.
    if quantizer.scale.dtype() != DType::F32 {
        let mode = DualMode { soft: false, learns: false, roundings: &Roundings::Fresh };
        return Ok(dual(quantizer, None, &mode)?.value);
    }
    Ok(hard_weight(alpha(quantizer), &quantizer.scale, &own_levels(quantizer))?)
}

fn dual(quantizer: &WeightQuantizer, direction: Option<&WeightQuantizer>, mode: &DualMode) -> Result<Dual> {
    let (floor, zero_point, highest) = quantizer.constants()?;
    let dtype = floor.dtype();
    let between = |x: &Tensor, high: f64| -> Result<Tensor> {
        let x = x.detach();
        Ok((x.ge(0f64)?.to_dtype(dtype)? * x.le(high)?.to_dtype(dtype)?)?)
    };
    let logits = &mode.parameter(alpha(quantizer));
    let (h, h_tangent) = match mode.soft {
        false => (logits.detach().ge(0f64)?.to_dtype(dtype)?, None),
        true => {
            let sigmoid = candle_nn::ops::sigmoid(logits)?;
            let stretched = ((&sigmoid * 1.2)? - 0.1)?;
            let passes = between(&stretched, 1.0)?;
            let above = stretched.detach().gt(1f64)?.to_dtype(dtype)?;
            let tangent = direction.map(|direction| -> Result<Tensor> {
                let slope = ((&sigmoid * sigmoid.affine(-1.0, 1.0)?)? * 1.2)?;
                Ok(((slope * alpha(direction).as_detached_tensor())? * &passes)?)
            });
            (((stretched * &passes)? + above)?, tangent.transpose()?)
        }
    };
    let level = (floor + h)?.broadcast_add(&zero_point)?;
    let passes = between(&level, highest)?;
    let above = (level.detach().gt(highest)?.to_dtype(dtype)? * highest)?;
    let level = ((level * &passes)? + above)?.broadcast_sub(&zero_point)?;
    let scale = &mode.parameter(&quantizer.scale);
    let of_scale = direction.map(|direction| level.broadcast_mul(&direction.scale.as_detached_tensor()));
    let of_level = h_tangent.map(|tangent| (tangent * &passes)?.broadcast_mul(scale));
    Ok(Dual { value: level.broadcast_mul(scale)?, tangent: sum(of_scale.transpose()?, of_level.transpose()?)? })
}

/// `weight * sum of (1 - |2 h - 1|^beta)`.
fn penalty(
    quantizer: &WeightQuantizer,
    direction: Option<&WeightQuantizer>,
    Regulariser { beta, weight }: Regulariser,
) -> Result<Option<Dual>> {
    let logits = alpha(quantizer).as_tensor();
    let sigmoid = candle_nn::ops::sigmoid(logits)?;
    let stretched = ((&sigmoid * 1.2)? - 0.1)?;
    let constant = stretched.detach();
    let passes = (constant.ge(0f64)?.to_dtype(logits.dtype())? * constant.le(1f64)?.to_dtype(logits.dtype())?)?;
    // Where it is clipped `h` is 0 or 1, which costs nothing.
    let distance = ((stretched * 2.0)? - 1.0)?.abs()?;
    let penalty = (distance.powf(beta)?.affine(-1.0, 1.0)? * &passes)?.sum_all()?;
    let tangent = direction.map(|direction| -> Result<Tensor> {
        let sign = ((constant.ge(0.5)?.to_dtype(logits.dtype())? * 2.0)? - 1.0)?;
        let slope = ((distance.powf(beta - 1.0)? * sign)? * (-2.0 * beta))?;
        let h = ((&sigmoid * sigmoid.affine(-1.0, 1.0)?)? * 1.2)?;
        let h = ((h * alpha(direction).as_detached_tensor())? * &passes)?;
        Ok(((slope * h)?.sum_all()? * weight)?)
    });
    Ok(Some(Dual { value: (penalty * weight)?, tangent: tangent.transpose()? }))
}
