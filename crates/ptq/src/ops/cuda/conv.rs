//! Convolution and its two gradients: which of the ways computes them.

#[cfg(feature = "cudnn")]
use super::cudnn;
use super::values::Values;
use super::{depthwise, products};
use crate::ops::sizes::Sizes;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Result, bail};

enum Way {
    Depthwise,
    Products,
    #[cfg(feature = "cudnn")]
    Cudnn,
}

impl Way {
    fn of(sizes: &Sizes) -> Self {
        if sizes.is_depthwise() {
            return Way::Depthwise;
        }
        #[cfg(feature = "cudnn")]
        if !products::are_faster_than_cudnn(sizes) {
            return Way::Cudnn;
        }
        Way::Products
    }
}

/// `conv(x, w)`.
pub fn conv_forward(x: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    check([x.len(), w.len()], [sizes.x_len(), sizes.weight()])?;
    match Way::of(sizes) {
        Way::Depthwise => depthwise::forward(x, w, sizes),
        Way::Products => products::forward(x, w, sizes),
        #[cfg(feature = "cudnn")]
        Way::Cudnn => cudnn::forward(x, w, sizes),
    }
}

/// The gradient of `sum(gy * conv(x, w))` to `x`.
pub fn conv_input_gradient(gy: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    check([gy.len(), w.len()], [sizes.y_len(), sizes.weight()])?;
    match Way::of(sizes) {
        Way::Depthwise => depthwise::input_gradient(gy, w, sizes),
        Way::Products => products::input_gradient(gy, w, sizes),
        #[cfg(feature = "cudnn")]
        Way::Cudnn => cudnn::input_gradient(gy, w, sizes),
    }
}

/// The gradient of `sum(gy * conv(x, w))` to `w`.
pub fn conv_weight_gradient(x: &Values, gy: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    check([x.len(), gy.len()], [sizes.x_len(), sizes.y_len()])?;
    if sizes.batch == 0 {
        bail!("a weight gradient of no images on a GPU");
    }
    match Way::of(sizes) {
        Way::Depthwise => depthwise::weight_gradient(x, gy, sizes),
        Way::Products => products::weight_gradient(x, gy, sizes),
        #[cfg(feature = "cudnn")]
        Way::Cudnn => cudnn::weight_gradient(x, gy, sizes),
    }
}

fn check(have: [usize; 2], need: [usize; 2]) -> Result<()> {
    if have == need { Ok(()) } else { bail!("conv2d: {have:?} elements, not {need:?}") }
}
