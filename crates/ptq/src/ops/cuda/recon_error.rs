//! The reconstruction error.

use super::launch::{Module, arguments, blocks_of_each, launch, module, sum_of_blocks};
use super::relu::same_length;
use super::values::Values;
use candle_core::Result;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

const RECON_ERROR: Module = module!("recon_error");

/// `sum of |weight * (y - target)|^p / means`, one element.
pub fn recon_error(y: &Values, target: &Values, weight: Option<&Values>, p: f32, means: f64) -> Result<CudaSlice<f32>> {
    same_length(y, target)?;
    weight.map_or(Ok(()), |weight| same_length(y, weight))?;
    sum_of_blocks(y, y.len(), 1.0 / means, |blocks, partial| {
        let arguments = arguments![y, target, weight, partial, p, y.len() as u64];
        // SAFETY: lengths are equal, and there is a partial sum for each block.
        unsafe { launch(y.device, &RECON_ERROR, "recon_error", blocks, &arguments) }
    })
}

/// Its gradient to `y`, times `upstream`, one element on the device.
pub fn recon_error_gradient(
    y: &Values,
    target: &Values,
    weight: Option<&Values>,
    upstream: &Values,
    p: f32,
    means: f64,
) -> Result<CudaSlice<f32>> {
    same_length(y, target)?;
    weight.map_or(Ok(()), |weight| same_length(y, weight))?;
    let (g, factor) = (y.room(y.len())?, (f64::from(p) / means) as f32);
    let arguments = arguments![y, target, weight, upstream, &g, p, factor, y.len() as u64];
    // SAFETY: lengths are equal; `upstream` has an element.
    unsafe { launch(y.device, &RECON_ERROR, "recon_error_gradient", blocks_of_each(y.len()), &arguments)? };
    Ok(g)
}
