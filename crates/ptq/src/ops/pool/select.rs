//! The pair of adjoint linear maps behind max pooling: picking the winners, and putting values back in their places.

#[cfg(feature = "cuda")]
use crate::ops::cuda::{self, Values};
use crate::ops::fresh::Fresh;
use crate::ops::kernel::with_slice;
use crate::ops::window::{inside, take_every};
use crate::ops::windows::{Pool, Windows};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, WithDType, bail};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use tracing::trace_span;

/// Planes handed to a worker at once: one plane is too little work for a task.
const PLANES: usize = 8;

impl Windows {
    /// For every output value the position of its maximum in its input plane, `y * W + x`. NaN wins, as in PyTorch.
    pub fn winners<T: WithDType>(&self, x: &[T]) -> Vec<u32> {
        let mut winners = vec![0; self.batch * self.channels * self.out_h * self.out_w];
        let planes = winners.par_chunks_exact_mut(self.out_h * self.out_w).zip(x.par_chunks_exact(self.h * self.w));
        planes.with_min_len(PLANES).for_each_init(
            || (vec![T::zero(); self.out_w], vec![T::zero(); self.out_w]),
            |(largest, values), (winners, x)| {
                for (i, winners) in winners.chunks_exact_mut(self.out_w).enumerate() {
                    self.winners_of_row(x, i, winners, largest, values);
                }
            },
        );
        winners
    }

    /// One output row, kernel position by kernel position: loops without branches over whole rows. `largest` and `values`
    /// are room for a row each.
    fn winners_of_row<T: WithDType>(
        &self,
        x: &[T],
        i: usize,
        winners: &mut [u32],
        largest: &mut [T],
        values: &mut [T],
    ) {
        let Pool { kernel, stride, padding } = self.pool;
        let first_y = (i * stride).saturating_sub(padding);
        for (j, winner) in winners.iter_mut().enumerate() {
            *winner = (first_y * self.w + (j * stride).saturating_sub(padding)) as u32;
        }
        largest.fill(T::from_f64(f64::NEG_INFINITY));
        for y in first_y..(i * stride + kernel - padding).min(self.h) {
            for tap in 0..kernel {
                let columns = inside(tap, stride, padding, self.w, self.out_w);
                if columns.is_empty() {
                    continue;
                }
                let first = y * self.w + columns.start * stride + tap - padding;
                let values = &mut values[columns.clone()];
                take_every(stride, &x[first..(y + 1) * self.w], values);
                let (winners, largest) = (&mut winners[columns.clone()], &mut largest[columns]);
                Arch::new().dispatch(KeepLarger {
                    winners,
                    largest,
                    values,
                    first: first as u32,
                    stride: stride as u32,
                });
            }
        }
    }
}

/// Where a value is larger than the largest so far, it and its position, `stride` apart from `first` on, take over.
///
/// A type rather than a closure: only what is always inlined is compiled for the instructions dispatched to.
struct KeepLarger<'a, T> {
    winners: &'a mut [u32],
    largest: &'a mut [T],
    values: &'a [T],
    first: u32,
    stride: u32,
}

impl<T: WithDType> WithSimd for KeepLarger<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let candidates = self.winners.iter_mut().zip(self.largest).zip(self.values).zip(0u32..);
        for (((winner, largest), value), n) in candidates {
            // NaN is the one value that differs from itself.
            #[allow(clippy::eq_op)]
            let wins = (*value > *largest) | (*value != *value);
            *largest = if wins { *value } else { *largest };
            *winner = if wins { self.first + n * self.stride } else { *winner };
        }
    }
}

/// `y[n,c,i] = x[n,c,winners[n,c,i]]`.
pub(super) struct Select {
    pub windows: Windows,
    /// `u32`, of the shape of `y`.
    pub winners: Tensor,
}

/// `x[n,c,winners[n,c,i]] += y[n,c,i]`, from zero.
struct PutBack {
    windows: Windows,
    winners: Tensor,
}

impl Select {
    fn compute<T: WithDType>(&self, x: &[T], winners: &[u32]) -> Vec<T> {
        let Windows { h, w, out_h, out_w, .. } = self.windows;
        let mut y = Fresh::new(winners.len());
        let planes = y.par_chunks_mut(out_h * out_w).zip(winners.par_chunks_exact(out_h * out_w));
        planes.zip(x.par_chunks_exact(h * w)).with_min_len(PLANES).for_each(|((y, winners), x)| {
            y.iter_mut().zip(winners).for_each(|(y, winner)| *y = x[*winner as usize]);
        });
        y.finish()
    }
}

impl PutBack {
    fn compute<T: WithDType>(&self, y: &[T], winners: &[u32]) -> Vec<T> {
        let Windows { batch, channels, h, w, out_h, out_w, .. } = self.windows;
        let mut x = Fresh::new(batch * channels * h * w);
        let planes = x.par_chunks_mut(h * w).zip(winners.par_chunks_exact(out_h * out_w));
        planes.zip(y.par_chunks_exact(out_h * out_w)).with_min_len(PLANES).for_each(|((x, winners), y)| {
            winners.iter().zip(y).for_each(|(winner, y)| x[*winner as usize] += *y);
        });
        x.finish()
    }
}

impl CustomOp1 for Select {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, at: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let _span = trace_span!("max pooling").entered();
        let Some((start, end)) = at.contiguous_offsets() else { bail!("max_pool2d of a view") };
        let y = with_slice(&self.winners, |winners| match x {
            CpuStorage::F32(x) => Ok(CpuStorage::F32(self.compute(&x[start..end], winners))),
            CpuStorage::F64(x) => Ok(CpuStorage::F64(self.compute(&x[start..end], winners))),
            _ => bail!("max_pool2d of element types other than f32 or f64"),
        })?;
        Ok((y, self.windows.output()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, at: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let _span = trace_span!("max pooling").entered();
        let values = Values::of(x, at)?;
        let y = cuda::with_values(&self.winners, |winners| cuda::max_pool_pick(&values, winners, &self.windows))?;
        Ok((cuda::storage(y, &x.device), self.windows.output()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let put_back = PutBack { windows: self.windows, winners: self.winners.clone() };
        Ok(Some(gy.contiguous()?.apply_op1(put_back)?))
    }
}

impl CustomOp1 for PutBack {
    fn name(&self) -> &'static str {
        "max_pool2d gradient"
    }

    fn cpu_fwd(&self, y: &CpuStorage, at: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let _span = trace_span!("max pooling, gradient").entered();
        let Some((start, end)) = at.contiguous_offsets() else { bail!("max_pool2d gradient of a view") };
        let x = with_slice(&self.winners, |winners| match y {
            CpuStorage::F32(y) => Ok(CpuStorage::F32(self.compute(&y[start..end], winners))),
            CpuStorage::F64(y) => Ok(CpuStorage::F64(self.compute(&y[start..end], winners))),
            _ => bail!("max_pool2d gradient of element types other than f32 or f64"),
        })?;
        Ok((x, self.windows.input()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, y: &CudaStorage, at: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let _span = trace_span!("max pooling, gradient").entered();
        let values = Values::of(y, at)?;
        let x = cuda::with_values(&self.winners, |winners| cuda::max_pool_put(&values, winners, &self.windows))?;
        Ok((cuda::storage(x, &y.device), self.windows.input()))
    }

    fn bwd(&self, _y: &Tensor, _x: &Tensor, gx: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let select = Select { windows: self.windows, winners: self.winners.clone() };
        Ok(Some(gx.contiguous()?.apply_op1(select)?))
    }
}
