//! Max pooling and global average pooling, right in first and second order.
//!
//! Candle's own `max_pool2d` has no padding, and its gradient is scaled by `1 / kernel^2` or missing. Here the position
//! of each maximum is found first; picking those positions is then a linear map (`select`).

mod select;
#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::ops::composed::shifted_views;
#[cfg(feature = "cuda")]
use crate::ops::cuda;
use crate::ops::dispatch::has_kernels;
use crate::ops::tape::apply1;
use crate::ops::tape::plain::contiguous;
pub use crate::ops::windows::Pool;
use crate::ops::windows::Windows;
use candle_core::{CpuStorage, D, DType, Device, Storage, Tensor, bail};
use select::Select;

/// Maximum over square windows: `y[n,c,i,j] = max_{a,b < k} x[n, c, s i + a - p, s j + b - p]`.
///
/// Shapes: `x` `(N, C, H, W)`, on the CPU `f32` or `f64`; result `(N, C, H', W')` with `H' = (H + 2p - k) / s + 1`.
/// Padding never wins. Of equal values the first in reading order does, and NaN before all, as in PyTorch.
/// Gradient: to the winning positions, to any order (the second derivative of the choice itself is zero).
/// Errors: [`Error::Shape`](crate::error::Error::Shape) when a window does not fit, or could lie on padding alone (`2p > k`).
pub fn max_pool2d(x: &Tensor, pool: Pool) -> Result<Tensor> {
    Maxima::of(x, pool)?.pick(x)
}

/// Where the maxima of each window are.
pub struct Maxima {
    windows: Windows,
    winners: Winners,
}

enum Winners {
    /// In the plane of each window, `u32` of the result's shape, for our kernels.
    Positions(Tensor),
    /// For each position in the window, the windows whose maximum is there.
    Views(Vec<Tensor>),
}

impl Maxima {
    /// Of `x`, as [`max_pool2d`] finds them.
    pub fn of(x: &Tensor, pool: Pool) -> Result<Self> {
        let windows = Windows::new(x.dims4()?, pool)?;
        let winners = match has_kernels(x) {
            true => Winners::Positions(winners(&x.contiguous()?, &windows)?),
            false => Winners::Views(winning_views(x, &windows)?),
        };
        Ok(Self { windows, winners })
    }

    /// The values of `t`, of the same shape, at these places: linear, so that it also maps tangents.
    pub fn pick(&self, t: &Tensor) -> Result<Tensor> {
        match &self.winners {
            Winners::Positions(winners) => {
                Ok(apply1(&contiguous(t)?, Select { windows: self.windows, winners: winners.clone() })?)
            }
            Winners::Views(wins) => {
                let views = shifted_views(t, self.windows.sliding())?;
                let zeros = views[0].zeros_like()?;
                let picked = views.iter().zip(wins).map(|(view, wins)| wins.where_cond(view, &zeros));
                Ok(picked.reduce(|sum, view| sum? + view?).unwrap_or(Ok(zeros))?)
            }
        }
    }
}

/// Mean over all pixels of a channel: `(N, C, H, W)` to `(N, C, 1, 1)`. Gradient: flows to `x`, to any order.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    let (n, c, _, _) = x.dims4()?;
    Ok(x.flatten_from(2)?.mean_keepdim(D::Minus1)?.reshape((n, c, 1, 1))?)
}

fn winners(x: &Tensor, windows: &Windows) -> candle_core::Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = x.device() {
        let winners = cuda::with_values(x, |x| cuda::max_pool_winners(x, windows))?;
        return Ok(cuda::tensor(winners, windows.output(), device));
    }
    let (storage, layout) = x.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("max_pool2d of a view") };
    let winners = match &*storage {
        Storage::Cpu(CpuStorage::F32(x)) => windows.winners(&x[start..end]),
        Storage::Cpu(CpuStorage::F64(x)) => windows.winners(&x[start..end]),
        _ => bail!("max_pool2d of element types other than f32 or f64"),
    };
    Tensor::from_vec(winners, windows.output(), &Device::Cpu)
}

/// The winners for devices without a kernel of ours, from Candle operations: each position in the window is a shifted,
/// strided view of `x`, and the first view that has the largest value, or a NaN, wins.
fn winning_views(x: &Tensor, windows: &Windows) -> Result<Vec<Tensor>> {
    // Zeros would win over negative values: padding is marked by a plane of zeros inside and -inf outside.
    let inside = Tensor::ones((1, 1, windows.h, windows.w), x.dtype(), x.device())?;
    let outside = (shifted_views(&inside, windows.sliding())?.into_iter())
        .map(|inside| {
            Ok(inside.log()?.broadcast_as((windows.batch, windows.channels, windows.out_h, windows.out_w))?)
        })
        .collect::<Result<Vec<Tensor>>>()?;
    let candidates = (shifted_views(&x.detach(), windows.sliding())?.iter().zip(&outside))
        .map(|(view, outside)| Ok(view.add(outside)?))
        .collect::<Result<Vec<Tensor>>>()?;
    let mut largest = candidates[0].clone();
    let mut winner = largest.zeros_like()?.to_dtype(DType::U32)?;
    for (position, candidate) in candidates.iter().enumerate().skip(1) {
        // NaN is the one value that differs from itself; nothing is larger than it.
        let wins = (candidate.gt(&largest)? + candidate.ne(candidate)?)?;
        let here = Tensor::full(position as u32, winner.shape(), winner.device())?;
        largest = wins.where_cond(candidate, &largest)?;
        winner = wins.where_cond(&here, &winner)?;
    }
    (0..candidates.len()).map(|position| Ok(winner.eq(position as u32)?)).collect()
}
