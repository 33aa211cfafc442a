//! BatchNorm in training mode.

use super::launch::{Module, arguments, blocks_of_each, launch, module, u32_of};
use super::relu::same_length;
use super::values::Values;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Result, bail};

const BATCH_NORM: Module = module!("batch_norm");
/// Values of a channel that one block sums up, `PART` of `kernels/batch_norm.cu`.
const PART: usize = 8192;

/// Sizes of a batch: images, channels, pixels.
#[derive(Clone, Copy)]
pub struct Batch(pub [usize; 3]);

impl Batch {
    fn argument(self) -> Result<[u32; 3]> {
        let [images, channels, pixels] = self.0;
        Ok([u32_of(images)?, u32_of(channels)?, u32_of(pixels)?])
    }

    fn blocks(self) -> usize {
        let [images, channels, pixels] = self.0;
        channels * (images * pixels).div_ceil(PART)
    }

    fn check(self, x: &Values) -> Result<()> {
        let [images, channels, pixels] = self.0;
        match x.len() == images * channels * pixels && x.len() > 0 {
            true => Ok(()),
            false => bail!("batch-norm: {} values for {images} images of {channels} channels", x.len()),
        }
    }
}

/// What is subtracted and multiplied with, per channel, and the unbiased variance.
pub struct BatchStatistics {
    pub mean: CudaSlice<f32>,
    pub inverse_std: CudaSlice<f32>,
    pub unbiased: CudaSlice<f32>,
}

/// [`crate::ops::batch_norm::track`]; nobody else may hold the elements of `running` but in the order of the device's stream.
pub fn blend(running: &Values, batch: &Values, momentum: f32) -> Result<()> {
    same_length(running, batch)?;
    let arguments = arguments![running, batch, momentum, running.len() as u64];
    // SAFETY: lengths are equal, and each element is read and written by the same thread.
    unsafe { launch(running.device, &BATCH_NORM, "blend", blocks_of_each(running.len()), &arguments) }
}

/// Statistics of `x` `(images, channels, pixels)`.
pub fn batch_statistics(x: &Values, batch: Batch, eps: f64) -> Result<BatchStatistics> {
    batch.check(x)?;
    let (sizes, channels) = (batch.argument()?, batch.0[1]);
    let (sums, squares) = (x.room::<f64>(batch.blocks())?, x.room::<f64>(batch.blocks())?);
    // SAFETY: a number for each part of each channel.
    unsafe { launch(x.device, &BATCH_NORM, "batch_sums", batch.blocks(), &arguments![x, &sums, &squares, sizes])? };
    let statistics =
        BatchStatistics { mean: x.room(channels)?, inverse_std: x.room(channels)?, unbiased: x.room(channels)? };
    let BatchStatistics { mean, inverse_std, unbiased } = &statistics;
    let arguments = arguments![&sums, &squares, mean, inverse_std, unbiased, eps, sizes, channels as u64];
    // SAFETY: a number for each channel.
    unsafe { launch(x.device, &BATCH_NORM, "batch_statistics", blocks_of_each(channels), &arguments)? };
    Ok(statistics)
}

/// `(x - mean) * inverse_std * weight + bias`.
pub fn batch_norm(x: &Values, [mean, inverse_std, weight, bias]: [&Values; 4], batch: Batch) -> Result<CudaSlice<f32>> {
    batch.check(x)?;
    let y = x.room(x.len())?;
    let arguments = arguments![x, mean, inverse_std, weight, bias, &y, batch.argument()?, x.len() as u64];
    // SAFETY: lengths are those of the batch, and the kernel takes its channel modulo their number.
    unsafe { launch(x.device, &BATCH_NORM, "batch_norm", blocks_of_each(x.len()), &arguments)? };
    Ok(y)
}

/// Gradients to `x`, through the statistics too, to `weight` and to `bias`.
pub fn batch_norm_gradient(
    x: &Values,
    g: &Values,
    [mean, inverse_std, weight]: [&Values; 3],
    batch: Batch,
) -> Result<[CudaSlice<f32>; 3]> {
    batch.check(x)?;
    same_length(x, g)?;
    let (sizes, channels) = (batch.argument()?, batch.0[1]);
    let (sums, products) = (x.room::<f64>(batch.blocks())?, x.room::<f64>(batch.blocks())?);
    let of_parts = arguments![x, g, mean, inverse_std, &sums, &products, sizes];
    // SAFETY: a number for each part of each channel.
    unsafe { launch(x.device, &BATCH_NORM, "batch_gradient_sums", batch.blocks(), &of_parts)? };
    let (g_bias, g_weight) = (x.room::<f32>(channels)?, x.room::<f32>(channels)?);
    let of_channels = arguments![&sums, &products, &g_bias, &g_weight, sizes, channels as u64];
    // SAFETY: a number for each channel.
    unsafe { launch(x.device, &BATCH_NORM, "batch_parameter_gradients", blocks_of_each(channels), &of_channels)? };
    let g_x = x.room::<f32>(x.len())?;
    let of_values = arguments![x, g, mean, inverse_std, weight, &g_bias, &g_weight, &g_x, sizes, x.len() as u64];
    // SAFETY: `g_x` is as long as `x`.
    unsafe { launch(x.device, &BATCH_NORM, "batch_input_gradient", blocks_of_each(x.len()), &of_values)? };
    Ok([g_x, g_weight, g_bias])
}
