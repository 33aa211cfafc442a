//! Rounding of weights and its regulariser.

use super::launch::{Module, arguments, blocks_of_each, launch, module, sum_of_blocks, u32_of};
use super::relu::same_length;
use super::values::Values;
use crate::ops::quantizer::Regulariser;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Result, bail};

const ROUNDING: Module = module!("rounding");

/// What a rounded weight is made of, all contiguous: `alpha` and `floor` of the weight's shape, `scale` and `zero_point` per channel.
pub struct Weight<'a> {
    pub alpha: &'a Values<'a>,
    pub scale: &'a Values<'a>,
    pub floor: &'a Values<'a>,
    pub zero_point: &'a Values<'a>,
    pub highest: f32,
}

impl Weight<'_> {
    fn per_channel(&self) -> Result<usize> {
        same_length(self.alpha, self.floor)?;
        same_length(self.scale, self.zero_point)?;
        let (elements, channels) = (self.alpha.len(), self.scale.len());
        if channels == 0 || elements % channels != 0 {
            bail!("rounding: {elements} elements for {channels} channels");
        }
        Ok(elements / channels)
    }

    fn rounded(&self, kernel: &'static str) -> Result<CudaSlice<f32>> {
        let Weight { alpha, scale, floor, zero_point, highest } = *self;
        let (per_channel, w) = (u32_of(self.per_channel()?)?, alpha.room(alpha.len())?);
        let arguments = arguments![alpha, scale, floor, zero_point, &w, highest, per_channel, alpha.len() as u64];
        // SAFETY: `per_channel` has checked the lengths.
        unsafe { launch(alpha.device, &ROUNDING, kernel, blocks_of_each(alpha.len()), &arguments)? };
        Ok(w)
    }
}

/// The weight of [`crate::ops::rounding::soft_weight`].
pub fn soft_weight(weight: &Weight) -> Result<CudaSlice<f32>> {
    weight.rounded("soft_weight")
}

/// [`crate::ops::rounding::hard_weight`].
pub fn hard_weight(weight: &Weight) -> Result<CudaSlice<f32>> {
    weight.rounded("hard_weight")
}

/// The value of [`Regulariser`], one element.
pub fn rounding_penalty(alpha: &Values, regulariser: Regulariser) -> Result<CudaSlice<f32>> {
    sum_of_blocks(alpha, alpha.len(), regulariser.weight, |blocks, partial| {
        let arguments = arguments![alpha, partial, regulariser.beta as f32, alpha.len() as u64];
        // SAFETY: there is a partial sum for each block.
        unsafe { launch(alpha.device, &ROUNDING, "rounding_penalty", blocks, &arguments) }
    })
}

/// Gradients to `alpha`, that of the regulariser among them, and to `scale`.
pub fn soft_weight_gradient(
    weight: &Weight,
    g: &Values,
    regulariser: Option<Regulariser>,
) -> Result<(CudaSlice<f32>, CudaSlice<f32>)> {
    let Weight { alpha, scale, floor, zero_point, highest } = *weight;
    same_length(alpha, g)?;
    let per_channel = u32_of(weight.per_channel()?)?;
    let (g_alpha, g_scale) = (alpha.room(alpha.len())?, alpha.room(scale.len())?);
    let (beta, strength) = regulariser.map_or((1.0, 0.0), |of| (of.beta as f32, of.weight as f32));
    let arguments =
        arguments![alpha, scale, floor, zero_point, g, &g_alpha, &g_scale, highest, per_channel, beta, strength,];
    // SAFETY: a block for each channel, lengths checked.
    unsafe { launch(alpha.device, &ROUNDING, "soft_weight_gradient", scale.len(), &arguments)? };
    Ok((g_alpha, g_scale))
}
