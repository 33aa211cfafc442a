//! Convolution and its two gradients: depthwise ones by our kernels, those of single pixels by cuBLAS, others by cuDNN.

use super::launch::{Module, arguments, blocks_of_each, launch, module, u32_of};
use super::pointwise;
use super::values::Values;
use crate::ops::sizes::Sizes;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Result, bail};

const DEPTHWISE: Module = module!("depthwise");
const SUMS: Module = module!("sums");

/// `conv(x, w)`.
pub fn conv_forward(x: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    check([x.len(), w.len()], [sizes.x_len(), sizes.weight()])?;
    if pointwise::are_products(sizes) {
        return pointwise::forward(x, w, sizes);
    }
    if !sizes.is_depthwise() {
        return dense::forward(x, w, sizes);
    }
    let y = x.room(sizes.y_len())?;
    let arguments = arguments![x, w, &y, depthwise(sizes)?, y.len() as u64];
    // SAFETY: lengths are those of the sizes.
    unsafe { launch(x.device, &DEPTHWISE, "depthwise_forward", blocks_of_each(y.len()), &arguments)? };
    Ok(y)
}

/// The gradient of `sum(gy * conv(x, w))` to `x`.
pub fn conv_input_gradient(gy: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    check([gy.len(), w.len()], [sizes.y_len(), sizes.weight()])?;
    if pointwise::are_products(sizes) {
        return pointwise::input_gradient(gy, w, sizes);
    }
    if !sizes.is_depthwise() {
        return dense::input_gradient(gy, w, sizes);
    }
    let gx = gy.room(sizes.x_len())?;
    let arguments = arguments![gy, w, &gx, depthwise(sizes)?, gx.len() as u64];
    // SAFETY: lengths are those of the sizes.
    unsafe { launch(gy.device, &DEPTHWISE, "depthwise_input_gradient", blocks_of_each(gx.len()), &arguments)? };
    Ok(gx)
}

/// The gradient of `sum(gy * conv(x, w))` to `w`.
pub fn conv_weight_gradient(x: &Values, gy: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    check([x.len(), gy.len()], [sizes.x_len(), sizes.y_len()])?;
    if pointwise::are_products(sizes) {
        return pointwise::weight_gradient(x, gy, sizes);
    }
    if !sizes.is_depthwise() {
        return dense::weight_gradient(x, gy, sizes);
    }
    let (of_images, gw) = (x.room::<f32>(sizes.batch * sizes.weight())?, x.room(sizes.weight())?);
    let arguments = arguments![x, gy, &of_images, depthwise(sizes)?];
    let planes = sizes.batch * sizes.c_in;
    // SAFETY: a block for each plane, which leaves a number for each tap.
    unsafe { launch(x.device, &DEPTHWISE, "depthwise_weight_gradient", planes, &arguments)? };
    let arguments = arguments![&of_images, &gw, u32_of(sizes.batch)?, gw.len() as u64];
    // SAFETY: as many numbers for each image as the weight has.
    unsafe { launch(x.device, &SUMS, "add_images", blocks_of_each(gw.len()), &arguments)? };
    Ok(gw)
}

fn check(have: [usize; 2], need: [usize; 2]) -> Result<()> {
    if have == need { Ok(()) } else { bail!("conv2d: {have:?} elements, not {need:?}") }
}

/// `Sizes` of `kernels/depthwise.cu`.
fn depthwise(sizes: &Sizes) -> Result<[u32; 11]> {
    let Sizes { batch, c_in, h, w, out_h, out_w, k_h, k_w, stride, top, bottom, left, right, .. } = *sizes;
    let mut numbers = [0; 11];
    // Kernels take positions in a plane, in one that is padded, and in the weight as numbers of 32 bits.
    for positions in [h * w, out_h * out_w, top + h + bottom, left + w + right, sizes.weight()] {
        u32_of(positions)?;
    }
    for (to, size) in numbers.iter_mut().zip([batch, c_in, h, w, out_h, out_w, k_h, k_w, stride, top, left]) {
        *to = u32_of(size)?;
    }
    Ok(numbers)
}

#[cfg(feature = "cudnn")]
use super::cudnn as dense;

/// Without cuDNN such convolutions are made of Candle's operations before they get here.
#[cfg(not(feature = "cudnn"))]
mod dense {
    use super::{CudaSlice, Result, Sizes, Values, bail};

    pub fn forward(_: &Values, _: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
        bail!("a convolution of {sizes:?} needs the feature cudnn")
    }

    pub use forward as input_gradient;
    pub use forward as weight_gradient;
}
