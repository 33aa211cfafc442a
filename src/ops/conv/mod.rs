//! 2-d convolution whose gradients can be differentiated again.
//!
//! A convolution is bilinear in input and weight, and so are its two gradients. The three are one family
//! ([`bilinear`]): the derivative of each is made of the other two, so derivatives of every order are exact and as
//! fast as the first. The arithmetic behind them: [`dense`] (matrix products) and [`depthwise`] (direct loops).
//!
//! Every result is the same, bit for bit, for any number of threads.

mod bilinear;
mod dense;
mod depthwise;
mod im2col;
mod matrix;
mod sizes;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use sizes::Sizes;

/// Stride, zero padding (pixels on each side) and number of groups of a square convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub stride: usize,
    pub padding: usize,
    pub groups: usize,
}

/// Convolves: `y[n,o,i,j] = bias[o] + sum_{c,a,b} w[o,c,a,b] x[n, c + first channel of o's group, s i + a - p, s j + b - p]`.
///
/// Shapes: `x` `(N, C_in, H, W)`; `w` `(C_out, C_in / groups, K_h, K_w)`; `bias` `(C_out)`;
/// result `(N, C_out, H', W')` with `H' = (H + 2p - K_h) / s + 1`. On the CPU `f32` or `f64`.
/// Gradient: flows to `x`, `w` and `bias`, to any order; on the CPU only those that somebody needs are computed.
/// Errors: [`Error::Shape`] when the shapes, element types or the geometry do not go together.
///
/// On other devices this is Candle's own convolution and a broadcast addition.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geometry: Geometry) -> Result<Tensor> {
    let sizes = Sizes::new(x.dims4()?, w.dims4()?, geometry)?;
    if let Some(bias) = bias
        && bias.dims() != [sizes.c_out]
    {
        return Err(shape_error(format!("bias {:?} for {} output channels", bias.dims(), sizes.c_out)));
    }
    if !matches!(x.device(), Device::Cpu) {
        let y = x.conv2d(w, geometry.padding, geometry.stride, 1, geometry.groups)?;
        return match bias {
            Some(bias) => Ok(y.broadcast_add(&bias.reshape((1, sizes.c_out, 1, 1))?)?),
            None => Ok(y),
        };
    }
    let dtypes: Vec<DType> = [Some(x), Some(w), bias].into_iter().flatten().map(Tensor::dtype).collect();
    if dtypes.iter().any(|dtype| *dtype != dtypes[0]) || !matches!(dtypes[0], DType::F32 | DType::F64) {
        return Err(shape_error(format!("input, weight and bias must all be f32 or all f64, not {dtypes:?}")));
    }
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    match bias {
        Some(bias) => Ok(x.apply_op3(&w, &bias.contiguous()?, bilinear::Forward(sizes))?),
        None => Ok(x.apply_op2(&w, bilinear::Forward(sizes))?),
    }
}

fn shape_error(problem: String) -> Error {
    Error::Shape { op: "conv2d", problem }
}
