//! Depthwise convolutions and their two gradients.

use super::launch::{Module, add_images, arguments, blocks_of_each, convolution, launch, module};
use super::values::Values;
use crate::ops::sizes::Sizes;
use candle_core::Result;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

const DEPTHWISE: Module = module!("depthwise");

/// `conv(x, w)`.
pub fn forward(x: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let y = x.room(sizes.y_len())?;
    let arguments = arguments![x, w, &y, convolution(sizes)?, y.len() as u64];
    // SAFETY: `conv` has checked the lengths, which are those of the sizes.
    unsafe { launch(x.device, &DEPTHWISE, "depthwise_forward", blocks_of_each(y.len()), &arguments)? };
    Ok(y)
}

/// The gradient to `x`.
pub fn input_gradient(gy: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let gx = gy.room(sizes.x_len())?;
    let arguments = arguments![gy, w, &gx, convolution(sizes)?, gx.len() as u64];
    // SAFETY: `conv` has checked the lengths, which are those of the sizes.
    unsafe { launch(gy.device, &DEPTHWISE, "depthwise_input_gradient", blocks_of_each(gx.len()), &arguments)? };
    Ok(gx)
}

/// The gradient to `w`.
pub fn weight_gradient(x: &Values, gy: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let (of_images, gw) = (x.room::<f32>(sizes.batch * sizes.weight())?, x.room(sizes.weight())?);
    let arguments = arguments![x, gy, &of_images, convolution(sizes)?];
    let planes = sizes.batch * sizes.c_in;
    // SAFETY: a block for each plane, which leaves a number for each tap.
    unsafe { launch(x.device, &DEPTHWISE, "depthwise_weight_gradient", planes, &arguments)? };
    add_images(x.device, &of_images, sizes.batch, &gw.as_view())?;
    Ok(gw)
}
