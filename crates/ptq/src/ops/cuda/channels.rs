//! A bias per channel, the sums of channels, and a factor per row.

use super::launch::{Module, arguments, blocks_of_each, launch, module, u32_of};
use super::values::Values;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, Result, bail};

const RELU: Module = module!("relu");

/// [`crate::ops::channels::add_bias`] for `x` `(N, C, pixels)`.
pub fn add_bias(x: &Values, bias: &Values, pixels: usize) -> Result<CudaSlice<f32>> {
    let y = x.room(x.len())?;
    let arguments = arguments![x, bias, &y, u32_of(pixels)?, u32_of(bias.len())?, 0u32, 0f32, x.len() as u64];
    // SAFETY: `y` is as long as `x`, and the kernel takes its channel modulo the number of biases.
    unsafe { launch(x.device, &RELU, "add_bias", blocks_of_each(x.len()), &arguments)? };
    Ok(y)
}

/// Adds a bias to what nobody else has seen yet, and rectifies it where there is an upper bound.
pub fn add_bias_in_place(
    x: CudaSlice<f32>,
    device: &CudaDevice,
    bias: &Values,
    pixels: usize,
    upper: Option<f32>,
) -> Result<CudaSlice<f32>> {
    let (rectify, upper) = (u32::from(upper.is_some()), upper.unwrap_or(0.0));
    let arguments = arguments![&x, bias, &x, u32_of(pixels)?, u32_of(bias.len())?, rectify, upper, x.len() as u64];
    // SAFETY: each element is read and written by the same thread.
    unsafe { launch(device, &RELU, "add_bias", blocks_of_each(x.len()), &arguments)? };
    Ok(x)
}

/// [`crate::ops::channels::scale_rows`] for as many rows as factors.
pub fn scale_rows(x: &Values, factors: &Values) -> Result<CudaSlice<f32>> {
    let y = x.room(x.len())?;
    let per_row = u32_of(x.len() / factors.len().max(1))?;
    let arguments = arguments![x, factors, &y, per_row, x.len() as u64];
    // SAFETY: `y` is as long as `x`, whose rows the caller has counted.
    unsafe { launch(x.device, &RELU, "scale_rows", blocks_of_each(x.len()), &arguments)? };
    Ok(y)
}

/// [`crate::ops::channels::channel_sums`] for `x` `(images, channels, pixels)`.
pub fn channel_sums(x: &Values, (images, channels, pixels): (usize, usize, usize)) -> Result<CudaSlice<f32>> {
    if x.len() != images * channels * pixels {
        bail!("channel-sums: {} elements for {images} images of {channels} channels", x.len());
    }
    let sums = x.room(channels)?;
    let arguments = arguments![x, &sums, u32_of(pixels)?, u32_of(channels)?, u32_of(images)?];
    // SAFETY: a block for each channel, sizes checked.
    unsafe { launch(x.device, &RELU, "channel_sums", channels, &arguments)? };
    Ok(sums)
}
