//! 2-d convolution whose gradients can be differentiated again.
//!
//! A convolution is bilinear in input and weight, and so are its two gradients. The three are one family
//! (`bilinear`): the derivative of each is made of the other two, so derivatives of every order are exact and as
//! fast as the first. The arithmetic behind them: `dense` (matrix products), `gathered` (those of
//! several small images), `direct` (few channels) and `depthwise` (one).
//!
//! Every result is the same, bit for bit, for any number of threads.

mod bilinear;
mod dense;
mod depthwise;
mod direct;
mod finish;
mod flat;
mod gathered;
mod im2col;
mod matrix;
mod parts;
mod shifted;
#[cfg(test)]
mod tests;
mod tile;
mod vector;

use super::channels::add_bias;
use super::composed::{self, Sliding};
use super::dispatch::has_kernels;
use super::relu::clipped_relu;
pub use super::sizes::{Geometry, Padding};
use super::sizes::{Sizes, shape_error};
use crate::error::Result;
use crate::ops::tape::plain::{contiguous, pad_with_zeros};
use crate::ops::tape::{apply2, apply3};
use bilinear::{Forward, InputGradient, WeightGradient};
use candle_core::{DType, Tensor};

/// Convolves: `y[n,o,i,j] = bias[o] + sum_{c,a,b} w[o,c,a,b] x[n, c + first channel of o's group, s i + a - top, s j + b - left]`.
///
/// Shapes: `x` `(N, C_in, H, W)`; `w` `(C_out, C_in / groups, K_h, K_w)`; `bias` `(C_out)`;
/// result `(N, C_out, H', W')` with `H' = (top + H + bottom - K_h) / s + 1`, and the zeros that [`Padding`] says around `x`. On the CPU
/// `f32` or `f64`.
/// Gradient: flows to `x`, `w` and `bias`, to any order; on the CPU only those that somebody needs are computed.
/// Errors: [`Error::Shape`](crate::error::Error::Shape) when the shapes, element types or the geometry do not go together.
///
/// On GPUs depthwise convolutions are kernels of ours, others cuDNN's (feature `cudnn`), which takes padding that differs per side as part
/// of `x`, or matrix products by cuBLAS: with cuDNN those of single pixels, without it all. Elsewhere this is Candle's own convolution, or
/// for several groups one without a loop over them.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geometry: Geometry) -> Result<Tensor> {
    convolve(x, w, bias, geometry, None)
}

/// [`clipped_relu`] of [`conv2d`] in one pass over the output, bit for bit the same.
pub fn conv2d_relu(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geometry: Geometry, upper: f32) -> Result<Tensor> {
    convolve(x, w, bias, geometry, Some(upper))
}

fn convolve(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geometry: Geometry, upper: Option<f32>) -> Result<Tensor> {
    let sizes = Sizes::new(x.dims4()?, w.dims4()?, geometry)?;
    if let Some(bias) = bias
        && bias.dims() != [sizes.c_out]
    {
        return Err(shape_error(format!("bias {:?} for {} output channels", bias.dims(), sizes.c_out)));
    }
    if !pads(x, &sizes) {
        return convolve(&padded(x, &sizes)?, w, bias, geometry.without_padding(), upper);
    }
    if !has_kernels(x) {
        let (Geometry { stride, groups, .. }, padding) = (geometry, sizes.even_padding().unwrap_or(0));
        let sliding = Sliding { kernel: (sizes.k_h, sizes.k_w), stride, padding, out: (sizes.out_h, sizes.out_w) };
        let y = match groups {
            1 => x.conv2d(w, padding, stride, 1, 1)?,
            _ if sizes.is_depthwise() => composed::depthwise_conv2d(x, w, sliding)?,
            _ => composed::grouped_conv2d(x, w, groups, sliding)?,
        };
        let y = match bias {
            Some(bias) => add_bias(&y, bias)?,
            None => y,
        };
        return Ok(match upper {
            Some(upper) => clipped_relu(&y, upper)?,
            None => y,
        });
    }
    let (x, w) = (contiguous(x)?, contiguous(w)?);
    match bias {
        Some(bias) => {
            check_dtypes(&[&x, &w, bias])?;
            Ok(apply3(&x, &w, &contiguous(bias)?, Forward { sizes, upper })?)
        }
        None => {
            check_dtypes(&[&x, &w])?;
            Ok(apply2(&x, &w, Forward { sizes, upper })?)
        }
    }
}

/// Gradient of `sum(gy * conv2d(x, w))` to `x`, which has `height` and `width`: the transposed convolution of `gy`.
///
/// Shapes: `gy` `(N, C_out, H', W')`; `w` as in [`conv2d`]; result `(N, C_in, height, width)`. Where [`conv2d`] has kernels only.
/// Gradient: flows to `gy` and `w`, to any order. Errors: [`Error::Shape`](crate::error::Error::Shape), as [`conv2d`].
pub fn input_gradient(gy: &Tensor, w: &Tensor, (height, width): (usize, usize), geometry: Geometry) -> Result<Tensor> {
    let (batch, c_out, out_h, out_w) = gy.dims4()?;
    let c_in = w.dims4()?.1 * geometry.groups;
    let sizes = Sizes::new((batch, c_in, height, width), w.dims4()?, geometry)?;
    check_output(&sizes, (c_out, out_h, out_w))?;
    check_dtypes(&[gy, w])?;
    if !pads(gy, &sizes) {
        let extent = (sizes.top + height + sizes.bottom, sizes.left + width + sizes.right);
        let of_padded = input_gradient(gy, w, extent, geometry.without_padding())?;
        return Ok(of_padded.narrow(2, sizes.top, height)?.narrow(3, sizes.left, width)?);
    }
    Ok(apply2(&contiguous(gy)?, &contiguous(w)?, InputGradient(sizes))?)
}

/// Gradient of `sum(gy * conv2d(x, w))` to `w`, whose kernel is `k_h` by `k_w`.
///
/// Shapes: `x` and `gy` as in [`conv2d`] and [`input_gradient`]; result `(C_out, C_in / groups, k_h, k_w)`. Where [`conv2d`] has kernels only.
/// Gradient: flows to `x` and `gy`, to any order. Errors: [`Error::Shape`](crate::error::Error::Shape), as [`conv2d`].
pub fn weight_gradient(x: &Tensor, gy: &Tensor, (k_h, k_w): (usize, usize), geometry: Geometry) -> Result<Tensor> {
    let (batch, c_out, out_h, out_w) = gy.dims4()?;
    let c_in_of_group = x.dim(1)?.checked_div(geometry.groups).unwrap_or(0);
    let sizes = Sizes::new(x.dims4()?, (c_out, c_in_of_group, k_h, k_w), geometry)?;
    if batch != sizes.batch {
        return Err(shape_error(format!("{} inputs with the gradients of {batch} outputs", sizes.batch)));
    }
    check_output(&sizes, (c_out, out_h, out_w))?;
    check_dtypes(&[x, gy])?;
    if !pads(x, &sizes) {
        return weight_gradient(&padded(x, &sizes)?, gy, (k_h, k_w), geometry.without_padding());
    }
    Ok(apply2(&contiguous(x)?, &contiguous(gy)?, WeightGradient(sizes))?)
}

/// Whether what convolves where `x` is knows the padding: cuDNN and Candle know only such as is the same on all sides.
fn pads(x: &Tensor, sizes: &Sizes) -> bool {
    let knows_sides = x.device().is_cpu() || sizes.is_depthwise() || !cfg!(feature = "cudnn");
    sizes.even_padding().is_some() || has_kernels(x) && knows_sides
}

/// `x` with its zeros around it.
fn padded(x: &Tensor, sizes: &Sizes) -> Result<Tensor> {
    Ok(pad_with_zeros(&pad_with_zeros(x, 2, sizes.top, sizes.bottom)?, 3, sizes.left, sizes.right)?)
}

fn check_output(sizes: &Sizes, gy: (usize, usize, usize)) -> Result<()> {
    let y = (sizes.c_out, sizes.out_h, sizes.out_w);
    if gy != y {
        return Err(shape_error(format!("gradient of an output {gy:?}, but the output is {y:?}")));
    }
    Ok(())
}

fn check_dtypes(tensors: &[&Tensor]) -> Result<()> {
    let dtypes: Vec<DType> = tensors.iter().map(|t| t.dtype()).collect();
    if dtypes.iter().any(|dtype| *dtype != dtypes[0]) || !matches!(dtypes[0], DType::F32 | DType::F64) {
        return Err(shape_error(format!("the arguments must all be f32 or all f64, not {dtypes:?}")));
    }
    Ok(())
}
