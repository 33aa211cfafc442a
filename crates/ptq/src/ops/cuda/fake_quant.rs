//! Fake quantization of activations.

use super::launch::{LevelsArgument, MaskArgument, Module, arguments, blocks_of_each, launch, module, sum_of_blocks};
use super::relu::same_length;
use super::values::Values;
use crate::ops::quantizer::{ClipOrder, FakeQuant};
use candle_core::Result;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

const FAKE_QUANT: Module = module!("fake_quant");

fn levels(quant: &FakeQuant) -> LevelsArgument {
    let clip_then_round = u32::from(quant.clip == ClipOrder::ClipThenRound);
    LevelsArgument { low: quant.levels.0, high: quant.levels.1, clip_then_round }
}

/// [`crate::ops::fake_quant::fake_quant`].
pub fn fake_quant(x: &Values, scale: &Values, quant: &FakeQuant) -> Result<CudaSlice<f32>> {
    let y = x.room(x.len())?;
    let arguments = arguments![x, scale, &y, levels(quant), MaskArgument::of(&quant.mask)?, x.len() as u64];
    // SAFETY: `y` is as long as `x`; a scale has an element.
    unsafe { launch(x.device, &FAKE_QUANT, "fake_quant", blocks_of_each(x.len()), &arguments)? };
    Ok(y)
}

/// Gradients to `x`, if somebody needs it, and to `scale`.
pub fn fake_quant_gradient(
    x: &Values,
    scale: &Values,
    g: &Values,
    quant: &FakeQuant,
    needs_x: bool,
) -> Result<(Option<CudaSlice<f32>>, CudaSlice<f32>)> {
    same_length(x, g)?;
    let g_x = needs_x.then(|| x.room(x.len())).transpose()?;
    let mask = MaskArgument::of(&quant.mask)?;
    let g_scale = sum_of_blocks(x, x.len(), quant.scale_gradient_factor.into(), |blocks, partial| {
        let arguments = arguments![x, scale, g, g_x.as_ref(), partial, levels(quant), mask, x.len() as u64];
        // SAFETY: lengths are equal, and there is a partial sum for each block.
        unsafe { launch(x.device, &FAKE_QUANT, "fake_quant_gradient", blocks, &arguments) }
    })?;
    Ok((g_x, g_scale))
}

/// Slope and level of [`crate::ops::fake_quant::Linearised`].
pub fn linearised(x: &Values, scale: &Values, quant: &FakeQuant) -> Result<(CudaSlice<f32>, CudaSlice<f32>)> {
    let (slope, level) = (x.room(x.len())?, x.room(x.len())?);
    let mask = MaskArgument::of(&quant.mask)?;
    let arguments = arguments![x, scale, &slope, &level, levels(quant), mask, x.len() as u64];
    // SAFETY: both results are as long as `x`.
    unsafe { launch(x.device, &FAKE_QUANT, "linearised", blocks_of_each(x.len()), &arguments)? };
    Ok((slope, level))
}
