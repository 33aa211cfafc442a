//! The pair of adjoint linear maps behind max pooling: picking the winners, and putting values back in their places.

use super::shape_error;
use crate::error::Result;
use crate::graph::Pool;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;
use std::sync::Arc;

/// Planes handed to a worker at once: one plane is too little work for a task.
const PLANES: usize = 8;

/// Sizes of one pooling, checked: no window is empty or lies on padding alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub batch: usize,
    pub channels: usize,
    pub h: usize,
    pub w: usize,
    pub out_h: usize,
    pub out_w: usize,
    pub pool: Pool,
}

impl Windows {
    pub fn new((batch, channels, h, w): (usize, usize, usize, usize), pool: Pool) -> Result<Windows> {
        let Pool { kernel, stride, padding } = pool;
        if kernel == 0 || stride == 0 || 2 * padding > kernel {
            return Err(shape_error(format!("{pool:?}: kernel and stride must be positive and 2 padding <= kernel")));
        }
        if channels == 0 || h + 2 * padding < kernel || w + 2 * padding < kernel || h * w > u32::MAX as usize {
            return Err(shape_error(format!("{pool:?} does not fit an input of {channels} channels of {h}x{w}")));
        }
        let (out_h, out_w) = ((h + 2 * padding - kernel) / stride + 1, (w + 2 * padding - kernel) / stride + 1);
        Ok(Windows { batch, channels, h, w, out_h, out_w, pool })
    }

    /// For every output value the position of its maximum in its input plane, `y * W + x`. NaN wins, as in PyTorch.
    pub fn winners<T: WithDType>(&self, x: &[T]) -> Vec<u32> {
        let mut winners = vec![0; self.batch * self.channels * self.out_h * self.out_w];
        let planes = winners.par_chunks_exact_mut(self.out_h * self.out_w).zip(x.par_chunks_exact(self.h * self.w));
        planes.with_min_len(PLANES).for_each(|(winners, x)| {
            for (i, row) in winners.chunks_exact_mut(self.out_w).enumerate() {
                for (j, winner) in row.iter_mut().enumerate() {
                    *winner = self.winner(x, i, j);
                }
            }
        });
        winners
    }

    fn winner<T: WithDType>(&self, x: &[T], i: usize, j: usize) -> u32 {
        let Pool { kernel, stride, padding } = self.pool;
        let inside = |out: usize, size: usize| {
            let start = out * stride;
            start.saturating_sub(padding)..(start + kernel - padding).min(size)
        };
        let columns = inside(j, self.w);
        let mut best: Option<(T, usize)> = None;
        for y in inside(i, self.h) {
            let row = &x[y * self.w..][columns.clone()];
            for (value, column) in row.iter().copied().zip(columns.clone()) {
                // NaN is the one value that differs from itself.
                #[allow(clippy::eq_op)]
                if best.is_none_or(|(largest, _)| value > largest || value != value) {
                    best = Some((value, y * self.w + column));
                }
            }
        }
        best.map_or(0, |(_, position)| position as u32)
    }

    fn input(&self) -> Shape {
        (self.batch, self.channels, self.h, self.w).into()
    }

    fn output(&self) -> Shape {
        (self.batch, self.channels, self.out_h, self.out_w).into()
    }
}

/// `y[n,c,i] = x[n,c,winners[n,c,i]]`.
pub(super) struct Select {
    pub windows: Windows,
    pub winners: Arc<Vec<u32>>,
}

/// `x[n,c,winners[n,c,i]] += y[n,c,i]`, from zero.
struct PutBack {
    windows: Windows,
    winners: Arc<Vec<u32>>,
}

impl Select {
    fn compute<T: WithDType>(&self, x: &[T]) -> Vec<T> {
        let Windows { h, w, out_h, out_w, .. } = self.windows;
        let mut y = vec![T::zero(); self.winners.len()];
        let planes = y.par_chunks_exact_mut(out_h * out_w).zip(self.winners.par_chunks_exact(out_h * out_w));
        planes.zip(x.par_chunks_exact(h * w)).with_min_len(PLANES).for_each(|((y, winners), x)| {
            y.iter_mut().zip(winners).for_each(|(y, winner)| *y = x[*winner as usize]);
        });
        y
    }
}

impl PutBack {
    fn compute<T: WithDType>(&self, y: &[T]) -> Vec<T> {
        let Windows { batch, channels, h, w, out_h, out_w, .. } = self.windows;
        let mut x = vec![T::zero(); batch * channels * h * w];
        let planes = x.par_chunks_exact_mut(h * w).zip(self.winners.par_chunks_exact(out_h * out_w));
        planes.zip(y.par_chunks_exact(out_h * out_w)).with_min_len(PLANES).for_each(|((x, winners), y)| {
            winners.iter().zip(y).for_each(|(winner, y)| x[*winner as usize] += *y);
        });
        x
    }
}

impl CustomOp1 for Select {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, at: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Some((start, end)) = at.contiguous_offsets() else { bail!("max_pool2d of a view") };
        let y = match x {
            CpuStorage::F32(x) => CpuStorage::F32(self.compute(&x[start..end])),
            CpuStorage::F64(x) => CpuStorage::F64(self.compute(&x[start..end])),
            _ => bail!("max_pool2d of element types other than f32 or f64"),
        };
        Ok((y, self.windows.output()))
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
        let Some((start, end)) = at.contiguous_offsets() else { bail!("max_pool2d gradient of a view") };
        let x = match y {
            CpuStorage::F32(y) => CpuStorage::F32(self.compute(&y[start..end])),
            CpuStorage::F64(y) => CpuStorage::F64(self.compute(&y[start..end])),
            _ => bail!("max_pool2d gradient of element types other than f32 or f64"),
        };
        Ok((x, self.windows.input()))
    }

    fn bwd(&self, _y: &Tensor, _x: &Tensor, gx: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let select = Select { windows: self.windows, winners: self.winners.clone() };
        Ok(Some(gx.contiguous()?.apply_op1(select)?))
    }
}
