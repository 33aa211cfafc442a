//! Rectified linear units.

use super::launch::{Module, arguments, blocks_of_each, launch, module};
use super::values::Values;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, Result, bail};

const RELU: Module = module!("relu");

/// [`crate::ops::relu::clipped_relu`].
pub fn clipped_relu(x: &Values, upper: f32) -> Result<CudaSlice<f32>> {
    let y = x.room(x.len())?;
    let arguments = arguments![x, &y, upper, x.len() as u64];
    // SAFETY: as many results as elements.
    unsafe { launch(x.device, &RELU, "clipped_relu", blocks_of_each(x.len()), &arguments)? };
    Ok(y)
}

/// Rectifies what nobody else has seen yet.
pub fn clipped_relu_in_place(x: CudaSlice<f32>, device: &CudaDevice, upper: f32) -> Result<CudaSlice<f32>> {
    let arguments = arguments![&x, &x, upper, x.len() as u64];
    // SAFETY: each element is read and written by the same thread.
    unsafe { launch(device, &RELU, "clipped_relu", blocks_of_each(x.len()), &arguments)? };
    Ok(x)
}

/// [`crate::ops::relu::clipped_relu_of_sum`].
pub fn clipped_relu_of_sum(a: &Values, b: &Values, upper: f32) -> Result<CudaSlice<f32>> {
    same_length(a, b)?;
    let y = a.room(a.len())?;
    let arguments = arguments![a, b, &y, upper, a.len() as u64];
    // SAFETY: all three have the same length.
    unsafe { launch(a.device, &RELU, "clipped_relu_of_sum", blocks_of_each(a.len()), &arguments)? };
    Ok(y)
}

/// [`crate::ops::relu::gate`].
pub fn gate(t: &Values, y: &Values, upper: f32) -> Result<CudaSlice<f32>> {
    same_length(t, y)?;
    let gated = t.room(t.len())?;
    let arguments = arguments![t, y, &gated, upper, t.len() as u64];
    // SAFETY: all three have the same length.
    unsafe { launch(t.device, &RELU, "gate", blocks_of_each(t.len()), &arguments)? };
    Ok(gated)
}

/// Errors: tensors of another number of elements.
pub(super) fn same_length<A, B>(a: &Values<A>, b: &Values<B>) -> Result<()> {
    match a.elements.len() == b.elements.len() {
        true => Ok(()),
        false => bail!("{} elements beside {}", a.elements.len(), b.elements.len()),
    }
}
