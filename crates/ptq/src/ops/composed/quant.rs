//! Quantizers with straight-through gradients.
//!
//! `a + (f - stop(f))` has the value of the constant `a` and the gradient of `f`: so the value is that of the exact formula,
//! and the gradient the one that the published code gives it.

use crate::ops::kernel::BLOCK;
use crate::ops::mask::Mask;
use crate::ops::quantizer::{ClipOrder, FakeQuant, Levels, Regulariser};
use candle_core::{DType, Result, Tensor};

/// Which elements of a tensor of the shape of `x` are selected, as `u8` on its device; `None` where all are.
///
/// The mask is made on the host.
pub(in crate::ops) fn mask_of(mask: &Mask, x: &Tensor) -> Result<Option<Tensor>> {
    let elements = x.elem_count();
    mask.check(elements)?;
    let selected: Vec<u8> = match mask {
        Mask::All => return Ok(None),
        Mask::Given(given) => given.to_vec(),
        Mask::Keyed { .. } => (0..elements)
            .step_by(BLOCK)
            .flat_map(|start| {
                let len = BLOCK.min(elements - start);
                mask.block(start, len).into_iter().take(len).map(|bit| u8::from(bit != 0))
            })
            .collect(),
    };
    Tensor::from_vec(selected, x.shape(), x.device()).map(Some)
}

/// [`crate::ops::fake_quant::fake_quant`].
pub(in crate::ops) fn fake_quant(x: &Tensor, scale: &Tensor, quant: &FakeQuant) -> Result<Tensor> {
    let (slope, level, quantized) = straight_through(x, scale, quant)?;
    let scale = scale.reshape(vec![1; x.rank()])?;
    let factor = f64::from(quant.scale_gradient_factor);
    let slowed = ((&scale * factor)? + (scale.detach() * (1.0 - factor))?)?;
    let linear = (x * slope)?.add(&level.broadcast_mul(&slowed)?)?;
    quantized + (&linear - linear.detach())?
}

/// Slope and level of [`crate::ops::fake_quant::Linearised`].
pub(in crate::ops) fn linearised(x: &Tensor, scale: &Tensor, quant: &FakeQuant) -> Result<(Tensor, Tensor)> {
    straight_through(x, scale, quant).map(|(slope, level, _)| (slope, level))
}

/// Slope and level, and the quantized values: all constants.
fn straight_through(x: &Tensor, scale: &Tensor, quant: &FakeQuant) -> Result<(Tensor, Tensor, Tensor)> {
    let x = x.detach();
    let scale = scale.detach().reshape(vec![1; x.rank()])?;
    let v = x.broadcast_div(&scale)?;
    let (low, high) = (f64::from(quant.levels.0), f64::from(quant.levels.1));
    let rounded = half_to_even(&v)?;
    let judged = match quant.clip {
        ClipOrder::ClipThenRound => &v,
        ClipOrder::RoundThenClip => &rounded,
    };
    let in_range = (judged.ge(low)? * judged.le(high)?)?;
    let q = bounded(&rounded, low, high)?;
    let slope = in_range.to_dtype(x.dtype())?;
    let level = in_range.where_cond(&(&q - &v)?, &q)?;
    let quantized = q.broadcast_mul(&scale)?;
    Ok(match mask_of(&quant.mask, &x)? {
        None => (slope, level, quantized),
        Some(mask) => (
            mask.where_cond(&slope, &slope.ones_like()?)?,
            mask.where_cond(&level, &level.zeros_like()?)?,
            mask.where_cond(&quantized, &x)?,
        ),
    })
}

/// [`crate::ops::rounding::straight_through_levels`].
pub(in crate::ops) fn straight_through_levels(
    v: &Tensor,
    zero_point: &Tensor,
    highest: f64,
) -> Result<(Tensor, Tensor)> {
    let level = half_to_even(&v.detach())?.broadcast_add(zero_point)?;
    let (level, in_range) = clipped(&level, 0.0, highest)?;
    Ok((in_range, level.broadcast_sub(zero_point)?))
}

/// Candle rounds a half away from zero.
fn half_to_even(v: &Tensor) -> Result<Tensor> {
    let below = v.floor()?;
    let rest = (v - &below)?;
    let odd = (&below - ((&below * 0.5)?.floor()? * 2.0)?)?;
    let up =
        (rest.gt(0.5)?.to_dtype(DType::F32)? + (rest.eq(0.5)?.to_dtype(DType::F32)? * odd.to_dtype(DType::F32)?)?)?;
    below + up.to_dtype(v.dtype())?
}

/// `r` of [`crate::ops::rounding::soft_weight`].
pub(in crate::ops) fn stretched_sigmoid(alpha: &Tensor, stretch: f32, shift: f32) -> Result<Tensor> {
    candle_nn::ops::sigmoid(alpha)?.affine(f64::from(stretch), f64::from(shift))
}

/// [`crate::ops::rounding::soft_weight`] for a known `r`.
pub(in crate::ops) fn rounded_weight(r: &Tensor, scale: &Tensor, levels: &Levels) -> Result<Tensor> {
    let mut per_channel = vec![1; r.rank()];
    per_channel[0] = levels.zero_point.elem_count();
    let floor = levels.floor.reshape(r.shape())?;
    let zero_point = levels.zero_point.reshape(per_channel.as_slice())?;
    let (h, r_in_range) = clipped(r, 0.0, 1.0)?;
    let (level, in_range) = clipped(&(floor + h)?.broadcast_add(&zero_point)?, 0.0, f64::from(levels.highest))?;
    let passes = (r_in_range * in_range)?;
    let level = (level + (passes * (r - r.detach())?)?)?;
    level.broadcast_sub(&zero_point)?.broadcast_mul(&scale.reshape(per_channel)?)
}

/// [`Regulariser`] of the rounding `clip(r, 0, 1)`.
pub(in crate::ops) fn rounding_regulariser(r: &Tensor, regulariser: Regulariser) -> Result<Tensor> {
    let Regulariser { beta, weight } = regulariser;
    let (h, in_range) = clipped(r, 0.0, 1.0)?;
    let h = (h + (in_range * (r - r.detach())?)?)?;
    let distance = h.affine(2.0, -1.0)?.abs()?.powf(beta)?;
    (distance.affine(-1.0, 1.0)?.sum_all()?) * weight
}

/// `clip(x, low, high)` as a constant, and 1 where `x` is in the closed range.
fn clipped(x: &Tensor, low: f64, high: f64) -> Result<(Tensor, Tensor)> {
    let x = x.detach();
    let in_range = (x.ge(low)? * x.le(high)?)?.to_dtype(x.dtype())?;
    Ok((bounded(&x, low, high)?, in_range))
}

/// `clip(x, low, high)`; NaN, which Candle's `maximum` and `minimum` may hide behind a bound, stays NaN.
fn bounded(x: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    let is_number = x.eq(x)?;
    is_number.where_cond(&x.maximum(low)?.minimum(high)?, x)
}
