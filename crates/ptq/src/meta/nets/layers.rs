//! Layers that several transform networks share, `(N, C, H, W)` in and out.
//!
//! Weights and biases start uniformly in `[-b, b]`, `b = 1 / sqrt(fan-in)`, as PyTorch's do. Gradients go to every parameter and to the
//! input, of first order: the meta-gradient is a gradient of `T`'s output, which goes backward through `T` once.

use super::Parameters;
use super::config::{NormStatistics, Up};
use crate::error::Result;
use crate::ops::batch_norm::{self, batch_norm_train};
use crate::ops::channels::add_bias;
use crate::ops::conv::{Geometry, Padding, conv2d};
use crate::ops::layout::pixel_shuffle;
use crate::ops::pool::Pool;
use crate::ops::pool::max_pool2d;
use crate::ops::relu::relu;
use crate::ops::tape::plain;
use candle_core::{Tensor, Var};

/// PyTorch's defaults.
const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// Convolution with stride 1 that keeps the size: `(N, C_in, H, W)` becomes `(N, C_out, H, W)`, weight `(C_out, C_in, k, k)` with odd
/// `k`, bias `(C_out)`.
pub struct ConvLayer {
    weight: Var,
    bias: Option<Var>,
}

impl ConvLayer {
    /// Its parameters are called `name.weight` and `name.bias`. Errors: no memory on the device.
    pub fn new(
        name: &str,
        (c_in, c_out): (usize, usize),
        kernel: usize,
        has_bias: bool,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let bound = 1.0 / ((c_in * kernel * kernel) as f64).sqrt();
        let weight = parameters.uniform(format!("{name}.weight"), &[c_out, c_in, kernel, kernel], bound)?;
        let bias = has_bias.then(|| parameters.uniform(format!("{name}.bias"), &[c_out], bound)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// All zero: its output starts as zero, and so do the gradients of its input. Errors: no memory on the device.
    pub fn zero(name: &str, (c_in, c_out): (usize, usize), kernel: usize, parameters: &mut Parameters) -> Result<Self> {
        let weight = parameters.constant(format!("{name}.weight"), &[c_out, c_in, kernel, kernel], 0.0)?;
        let bias = Some(parameters.constant(format!("{name}.bias"), &[c_out], 0.0)?);
        Ok(Self { weight, bias })
    }

    /// `y = W * x + b`, with `(k - 1) / 2` zeros on each side of `x`. Errors: `x` of other than `C_in` channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let padding = self.weight.dim(2)? / 2;
        let geometry = Geometry { stride: 1, padding: Padding::Each(padding), groups: 1 };
        conv2d(x, self.weight.as_tensor(), self.bias.as_ref().map(Var::as_tensor), geometry)
    }
}

/// BatchNorm of each channel, with the statistics of the batch or the running ones; gain, bias and statistics `(C)`.
pub struct NormLayer {
    weight: Var,
    bias: Var,
    mean: Var,
    var: Var,
}

impl NormLayer {
    /// Gain 1, bias 0, running mean 0 and variance 1. Errors: no memory on the device.
    pub fn new(name: &str, channels: usize, parameters: &mut Parameters) -> Result<Self> {
        Ok(Self {
            weight: parameters.constant(format!("{name}.weight"), &[channels], 1.0)?,
            bias: parameters.constant(format!("{name}.bias"), &[channels], 0.0)?,
            mean: parameters.buffer(format!("{name}.running_mean"), &[channels], 0.0)?,
            var: parameters.buffer(format!("{name}.running_var"), &[channels], 1.0)?,
        })
    }

    /// `y = gain (x - mean) / sqrt(var + 1e-5) + bias`.
    ///
    /// With [`NormStatistics::Batch`], mean and (biased) variance are those of `x` over `(N, H, W)`, gradients go through them, and the
    /// running ones move by a tenth of the way towards them (the variance unbiased). With [`NormStatistics::Running`] they are
    /// constants. Errors: `x` of other than `C` channels.
    pub fn forward(&self, x: &Tensor, statistics: NormStatistics) -> Result<Tensor> {
        let (weight, bias) = (self.weight.as_tensor(), self.bias.as_tensor());
        match statistics {
            NormStatistics::Batch => {
                let (y, batch) = batch_norm_train(x, weight, bias, EPS)?;
                batch_norm::track(&self.mean, &batch.mean, MOMENTUM)?;
                batch_norm::track(&self.var, &batch.var, MOMENTUM)?;
                Ok(y)
            }
            NormStatistics::Running => {
                let gain = (weight / (self.var.as_detached_tensor() + EPS)?.sqrt()?)?;
                let offset = (bias - (self.mean.as_detached_tensor() * &gain)?)?;
                let shape = (1, gain.elem_count(), 1, 1);
                Ok(x.broadcast_mul(&gain.reshape(shape)?)?.broadcast_add(&offset.reshape(shape)?)?)
            }
        }
    }
}

/// Twice: 3x3 convolution without bias, BatchNorm, ReLU. `(N, C_in, H, W)` becomes `(N, C_out, H, W)`; parameters and input get gradients.
pub struct DoubleConv {
    layers: [(ConvLayer, NormLayer); 2],
}

impl DoubleConv {
    /// `c_out` channels between the two convolutions as well. Errors: no memory on the device.
    pub fn new(name: &str, (c_in, c_out): (usize, usize), parameters: &mut Parameters) -> Result<Self> {
        Self::through(name, (c_in, c_out, c_out), parameters)
    }

    /// With `c_mid` channels between the two convolutions. Errors: no memory on the device.
    pub fn through(
        name: &str,
        (c_in, c_mid, c_out): (usize, usize, usize),
        parameters: &mut Parameters,
    ) -> Result<Self> {
        // Positions in the published code's sequence of layers: convolution, normalisation, activation.
        let mut layer = |position: usize, (c_in, c_out): (usize, usize)| -> Result<(ConvLayer, NormLayer)> {
            let conv = ConvLayer::new(&format!("{name}.double_conv.{position}"), (c_in, c_out), 3, false, parameters)?;
            Ok((conv, NormLayer::new(&format!("{name}.double_conv.{}", position + 1), c_out, parameters)?))
        };
        Ok(Self { layers: [layer(0, (c_in, c_mid))?, layer(3, (c_mid, c_out))?] })
    }

    /// `relu(norm(conv(x)))` twice. Errors: `x` of other than `C_in` channels.
    pub fn forward(&self, x: &Tensor, statistics: NormStatistics) -> Result<Tensor> {
        let layer = |x: Tensor, (conv, norm): &(ConvLayer, NormLayer)| {
            Ok(relu(&norm.forward(&conv.forward(&x)?, statistics)?)?)
        };
        self.layers.iter().try_fold(x.clone(), layer)
    }
}

/// Maximum over 2x2 windows: `(N, C, H, W)` becomes `(N, C, floor(H / 2), floor(W / 2))`; the gradient goes to the first largest element of
/// each window.
pub fn halve(x: &Tensor) -> Result<Tensor> {
    max_pool2d(x, Pool { kernel: 2, stride: 2, padding: 0 })
}

/// Doubles height and width: `(N, C_in, H, W)` becomes `(N, C_out, 2 H, 2 W)`.
pub enum Doubling {
    /// Transposed 2x2 convolution with stride 2: weight `(C_in, C_out, 2, 2)`, bias `(C_out)`.
    Transposed(Var, Var),
    /// Interpolates between pixel centres with the corners aligned.
    Bilinear,
}

impl Doubling {
    /// From `c_in` channels to `c_out`, or to `c_in` where nothing is learned. Errors: no memory on the device.
    pub fn new(name: &str, (c_in, c_out): (usize, usize), up: Up, parameters: &mut Parameters) -> Result<Self> {
        match up {
            Up::Bilinear => Ok(Self::Bilinear),
            Up::Transposed => {
                // PyTorch counts the second dimension of a transposed weight as its inputs.
                let bound = 1.0 / ((c_out * 4) as f64).sqrt();
                let weight = parameters.uniform(format!("{name}.weight"), &[c_in, c_out, 2, 2], bound)?;
                Ok(Self::Transposed(weight, parameters.uniform(format!("{name}.bias"), &[c_out], bound)?))
            }
        }
    }

    /// Linear in `x`, and in the weight where there is one; both get gradients. Errors: `x` of other than `C_in` channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Transposed(weight, bias) => doubled_by_convolution(x, weight.as_tensor(), bias.as_tensor()),
            Self::Bilinear => {
                let (_, _, h, w) = x.dims4()?;
                resized(x, (2 * h, 2 * w))
            }
        }
    }
}

/// Windows of stride 2 do not overlap, so this is a 1x1 convolution to four times the channels, which are then spread.
fn doubled_by_convolution(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (c_in, c_out, _, _) = weight.dims4()?;
    let weight = plain::first_dimension_last(weight)?;
    let weight = plain::reshape(&plain::contiguous(&weight)?, (c_out * 4, c_in, 1, 1))?;
    let y = conv2d(x, &weight, None, Geometry { stride: 1, padding: Padding::Each(0), groups: 1 })?;
    Ok(add_bias(&pixel_shuffle(&y)?, bias)?)
}

/// `x` `(N, C, H, W)` interpolated bilinearly to `(N, C, height, width)` with the corners aligned, that is output row `i` reads input row
/// `i (H - 1) / (height - 1)`: two products with constant matrices, so linear in `x` with exact gradients.
pub fn resized(x: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let matrix = |from: usize, to: usize| -> Result<Tensor> {
        let mut values = vec![0f64; from * to];
        for i in 0..to {
            let at = if to > 1 { (i * (from - 1)) as f64 / (to - 1) as f64 } else { 0.0 };
            let low = (at as usize).min(from - 1);
            let high = (low + 1).min(from - 1);
            let frac = at - low as f64;
            values[low * to + i] += 1.0 - frac;
            values[high * to + i] += frac;
        }
        Ok(Tensor::from_vec(values, (from, to), x.device())?.to_dtype(x.dtype())?)
    };
    let rows = x.reshape((n * c * h, w))?.matmul(&matrix(w, width)?)?.reshape((n * c, h, width))?;
    let columns = rows.transpose(1, 2)?.contiguous()?.reshape((n * c * width, h))?.matmul(&matrix(h, height)?)?;
    Ok(columns.reshape((n * c, width, height))?.transpose(1, 2)?.contiguous()?.reshape((n, c, height, width))?)
}

/// `x` `(N, C, H, W)` with zeros around it up to `(N, C, height, width)`; of an odd number of rows or columns one more goes after it
/// (the published padding rule). The gradient is cut back to `x`. Height and width are not smaller than those of `x`.
pub fn padded(x: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let (rows, columns) = (height - h, width - w);
    let x = plain::pad_with_zeros(x, 2, rows / 2, rows - rows / 2)?;
    Ok(plain::pad_with_zeros(&x, 3, columns / 2, columns - columns / 2)?)
}
