//! Max pooling and global average pooling, right in first and second order.
//!
//! Candle's own `max_pool2d` has no padding, and its gradient is scaled by `1 / kernel^2` or missing. Here the position
//! of each maximum is found first; picking those positions is then a linear map (`select`).

mod select;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::graph::Pool;
use candle_core::{CpuStorage, D, DType, Device, Storage, Tensor, bail};
use select::{Select, Windows};
use std::sync::Arc;

/// Maximum over square windows: `y[n,c,i,j] = max_{a,b < k} x[n, c, s i + a - p, s j + b - p]`.
///
/// Shapes: `x` `(N, C, H, W)`, on the CPU `f32` or `f64`; result `(N, C, H', W')` with `H' = (H + 2p - k) / s + 1`.
/// Padding never wins. Of equal values the first in reading order does, as in PyTorch.
/// Gradient: to the winning positions, to any order (the second derivative of the choice itself is zero).
/// Errors: [`Error::Shape`] when a window does not fit, or could lie on padding alone (`2p > k`).
pub fn max_pool2d(x: &Tensor, pool: Pool) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => Maxima::of(x, pool)?.pick(x),
        _ => max_of_shifted_views(x, &Windows::new(x.dims4()?, pool)?),
    }
}

/// Where the maxima of each window are.
pub struct Maxima {
    windows: Windows,
    winners: Arc<Vec<u32>>,
}

impl Maxima {
    /// Of `x`, as [`max_pool2d`] finds them; on the CPU only.
    pub fn of(x: &Tensor, pool: Pool) -> Result<Self> {
        let windows = Windows::new(x.dims4()?, pool)?;
        let winners = Arc::new(winners(&x.contiguous()?, &windows)?);
        Ok(Self { windows, winners })
    }

    /// The values of `t`, of the same shape, at these places: linear, so that it also maps tangents.
    pub fn pick(&self, t: &Tensor) -> Result<Tensor> {
        Ok(t.contiguous()?.apply_op1(Select { windows: self.windows, winners: self.winners.clone() })?)
    }
}

/// Mean over all pixels of a channel: `(N, C, H, W)` to `(N, C, 1, 1)`. Gradient: flows to `x`, to any order.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    let (n, c, _, _) = x.dims4()?;
    Ok(x.flatten_from(2)?.mean_keepdim(D::Minus1)?.reshape((n, c, 1, 1))?)
}

fn winners(x: &Tensor, windows: &Windows) -> candle_core::Result<Vec<u32>> {
    let (storage, layout) = x.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("max_pool2d of a view") };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(x)) => Ok(windows.winners(&x[start..end])),
        Storage::Cpu(CpuStorage::F64(x)) => Ok(windows.winners(&x[start..end])),
        _ => bail!("max_pool2d of element types other than f32 or f64"),
    }
}

/// The same for devices without a kernel of ours, from Candle operations: each kernel position is a shifted, strided
/// view of `x`, and the result is picked from the first view that equals the largest.
fn max_of_shifted_views(x: &Tensor, windows: &Windows) -> Result<Tensor> {
    let constant = x.detach();
    // Zeros would win over negative values: padding is marked by a plane of zeros inside and -inf outside.
    let inside = Tensor::ones((1, 1, windows.h, windows.w), x.dtype(), x.device())?;
    let outside = (shifted_views(&inside, windows)?.into_iter())
        .map(|inside| {
            Ok(inside.log()?.broadcast_as((windows.batch, windows.channels, windows.out_h, windows.out_w))?)
        })
        .collect::<Result<Vec<Tensor>>>()?;
    let candidates = (shifted_views(&constant, windows)?.iter().zip(&outside))
        .map(|(view, outside)| Ok(view.add(outside)?))
        .collect::<Result<Vec<Tensor>>>()?;
    let mut largest = candidates[0].clone();
    for candidate in &candidates[1..] {
        largest = largest.maximum(candidate)?;
    }
    let mut free = largest.ones_like()?.to_dtype(DType::U8)?;
    let zeros = largest.zeros_like()?;
    let mut result = zeros.clone();
    for (view, candidate) in shifted_views(x, windows)?.iter().zip(&candidates) {
        let wins = (candidate.eq(&largest)? * &free)?;
        free = (free - &wins)?;
        result = (result + wins.where_cond(view, &zeros)?)?;
    }
    Ok(result)
}

/// One `(N, C, H', W')` view of `x` padded with zeros for each kernel position, in reading order.
fn shifted_views(x: &Tensor, windows: &Windows) -> Result<Vec<Tensor>> {
    let &Windows { h, w, out_h, out_w, pool: Pool { kernel, stride, padding }, .. } = windows;
    let (n, c, _, _) = x.dims4()?;
    // Room to cut `out * stride` rows from the last kernel row on.
    let after = |size: usize, out: usize| (kernel - 1 + out * stride).saturating_sub(size + padding);
    let padded = x.pad_with_zeros(2, padding, after(h, out_h))?.pad_with_zeros(3, padding, after(w, out_w))?;
    let mut views = Vec::with_capacity(kernel * kernel);
    for (a, b) in (0..kernel).flat_map(|a| (0..kernel).map(move |b| (a, b))) {
        let rows = padded.narrow(2, a, out_h * stride)?.narrow(3, b, out_w * stride)?.contiguous()?;
        let split = rows.reshape(&[n, c, out_h, stride, out_w, stride])?;
        views.push(split.narrow(3, 0, 1)?.narrow(5, 0, 1)?.contiguous()?.reshape((n, c, out_h, out_w))?);
    }
    Ok(views)
}

fn shape_error(problem: String) -> Error {
    Error::Shape { op: "max_pool2d", problem }
}
