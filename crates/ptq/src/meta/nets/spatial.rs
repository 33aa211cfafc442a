//! A spatial transformer (Jaderberg et al., arXiv 1506.02025): a small network looks at each image and warps it by an
//! affine map. The weights of its last layer start at zero, so that all images start with the same map: the identity, or one near it.

use super::config::{NormStatistics, Transform};
use super::layers::{ConvLayer, halve};
use super::{Net, Parameters, Size};
use crate::error::Result;
use crate::ops::pool::global_avg_pool;
use crate::ops::relu::relu;
use candle_core::{Tensor, Var};

struct Spatial {
    first: ConvLayer,
    second: ConvLayer,
    /// `(base, 6)`: change of the rows of the affine map.
    weight: Var,
    bias: Var,
}

pub(super) fn build(config: &Transform, channels: usize, parameters: &mut Parameters) -> Result<Box<dyn Net>> {
    let base = config.base;
    Ok(Box::new(Spatial {
        first: ConvLayer::new("first", (channels, base), 3, true, parameters)?,
        second: ConvLayer::new("second", (base, base), 3, true, parameters)?,
        weight: parameters.constant("affine.weight".into(), &[base, 6], 0.0)?,
        bias: parameters.uniform("affine.bias".into(), &[6], config.start_warp)?,
    }))
}

/// Beside the layers with their rectifiers, the four pixels between which each one is read and what becomes of them.
pub(super) fn size(config: &Transform, channels: usize, pixels: usize) -> Size {
    let base = config.base;
    let layers = Size::new(6 * base + 6, base * (pixels + pixels / 4) + 8 * channels * pixels);
    layers.conv((channels, base), 3, pixels).conv((base, base), 3, pixels / 4)
}

impl Net for Spatial {
    /// Gradient: to the parameters; none to `x` through the pixels that are read.
    fn forward(&self, x: &Tensor, _statistics: NormStatistics) -> Result<Tensor> {
        let features = relu(&self.first.forward(x)?)?;
        let features = match features.dim(2)?.min(features.dim(3)?) {
            1 => features,
            _ => halve(&features)?,
        };
        let features = global_avg_pool(&relu(&self.second.forward(&features)?)?)?.flatten_from(1)?;
        let change = features.matmul(self.weight.as_tensor())?.broadcast_add(self.bias.as_tensor())?;
        let identity = Tensor::new(&[1f64, 0., 0., 0., 1., 0.], x.device())?.to_dtype(x.dtype())?;
        warp(x, &change.broadcast_add(&identity)?)
    }
}

/// Reads each output pixel at `A (u, v, 1)`, with `u` and `v` from -1 to 1 over columns and rows and the corners aligned;
/// bilinear, the border continued.
///
/// Shapes: `x` `(N, C, H, W)`; `affine` `(N, 6)`, the rows of `A`; result as `x`.  Gradient: to `affine` only.
pub(super) fn warp(x: &Tensor, affine: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let x = x.detach().reshape((n, c, h * w))?;
    let side = |i: usize, size: usize| if size > 1 { 2.0 * i as f64 / (size - 1) as f64 - 1.0 } else { 0.0 };
    let columns = (0..h * w).map(|p| side(p % w, w));
    let rows = (0..h * w).map(|p| side(p / w, h));
    let grid: Vec<f64> = columns.chain(rows).chain(std::iter::repeat_n(1.0, h * w)).collect();
    let grid = Tensor::from_vec(grid, (3, h * w), x.device())?.to_dtype(x.dtype())?;
    let at = affine.reshape((n * 2, 3))?.matmul(&grid)?.reshape((n, 2, h * w))?;
    let (column, column_frac) = Axis::of(&at.narrow(1, 0, 1)?, w)?;
    let (row, row_frac) = Axis::of(&at.narrow(1, 1, 1)?, h)?;
    let corner = |row: &[usize], column: &[usize]| -> Result<Tensor> {
        let index: Vec<u32> = row.iter().zip(column).map(|(row, column)| (row * w + column) as u32).collect();
        let index = Tensor::from_vec(index, (n, 1, h * w), x.device())?;
        Ok(x.gather(&index.broadcast_as((n, c, h * w))?.contiguous()?, 2)?)
    };
    let between = |low: Tensor, high: Tensor, frac: &Tensor| -> Result<Tensor> {
        Ok((&low + (high - &low)?.broadcast_mul(frac)?)?)
    };
    let upper = between(corner(&row.low, &column.low)?, corner(&row.low, &column.high)?, &column_frac)?;
    let lower = between(corner(&row.high, &column.low)?, corner(&row.high, &column.high)?, &column_frac)?;
    Ok(between(upper, lower, &row_frac)?.reshape((n, c, h, w))?)
}

/// The two pixels between which each coordinate of one axis lies.
struct Axis {
    low: Vec<usize>,
    high: Vec<usize>,
}

impl Axis {
    /// Of coordinates `at` `(N, 1, P)` from -1 to 1 over `size` pixels; with the differentiable fraction of the way.
    fn of(at: &Tensor, size: usize) -> Result<(Self, Tensor)> {
        let last = (size - 1) as f64;
        let pixel = ((at + 1.0)? * (last / 2.0))?;
        let values = pixel.detach().flatten_all()?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
        let mut low = Vec::with_capacity(values.len());
        let (mut factor, mut offset) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
        for value in values {
            let floor = value.clamp(0.0, last).floor().min((last - 1.0).max(0.0));
            low.push(floor as usize);
            // Beyond the border the fraction is fixed.
            let is_inside = (0.0..=last).contains(&value);
            factor.push(f64::from(u8::from(is_inside)));
            offset.push(if is_inside { -floor } else { value.clamp(0.0, last) - floor });
        }
        let constant =
            |values: Vec<f64>| Tensor::from_vec(values, pixel.shape(), pixel.device())?.to_dtype(pixel.dtype());
        let frac = ((&pixel * constant(factor)?)? + constant(offset)?)?;
        let high = low.iter().map(|low| (low + 1).min(size - 1)).collect();
        Ok((Self { low, high }, frac))
    }
}
