//! What the element-wise operations share: access to storage, fixed blocks, runtime choice of SIMD instructions.

use super::fresh::Fresh;
use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, WithDType, bail};
use rayon::prelude::*;

/// Elements per block. Partial sums are per block, so this size is part of the results.
pub const BLOCK: usize = 1 << 12;

/// Runs `f` compiled for the widest vector instructions of this machine; loops to vectorise must be inlined into it.
#[inline(always)]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// The elements of a contiguous storage.
pub fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => bail!("expected a contiguous tensor, got {layout:?}"),
    }
}

/// Calls `f` with the elements of a contiguous tensor on the CPU.
pub fn with_slice<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(slice(storage, layout)?),
        _ => bail!("expected a tensor on the CPU, got one on {:?}", tensor.device()),
    }
}

/// The same with several.
pub fn with_slices<T: WithDType, R, const N: usize>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[T]; N]) -> Result<R>,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[T]; N] = [&[]; N];
    for (of_tensor, (storage, layout)) in slices.iter_mut().zip(&guards) {
        *of_tensor = match &**storage {
            Storage::Cpu(storage) => slice(storage, layout)?,
            _ => bail!("expected tensors on the CPU"),
        };
    }
    f(slices)
}

/// `x` where it is between the bounds, else the nearer bound; NaN stays NaN, as in PyTorch, where `max` and `min` would hide it
/// behind a bound.
#[inline(always)]
pub fn bounded<T: PartialOrd>(x: T, low: T, high: T) -> T {
    // A comparison with NaN is false: it is what is left over.
    let raised = if x <= low { low } else { x };
    if raised >= high { high } else { raised }
}

/// `f(element)` for every element.
pub fn map<T: WithDType>(x: &[T], f: impl Fn(T) -> T + Sync) -> Vec<T> {
    let mut y = Fresh::new(x.len());
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = f(x);
                }
            },
        );
    });
    y.finish()
}

/// `f(a, b)` for every pair of elements.
pub fn map2<T: WithDType>(a: &[T], b: &[T], f: impl Fn(T, T) -> T + Sync) -> Vec<T> {
    let mut y = Fresh::new(a.len());
    y.par_chunks_mut(BLOCK).zip(a.par_chunks(BLOCK)).zip(b.par_chunks(BLOCK)).for_each(|((y, a), b)| {
        vectorised(
            #[inline(always)]
            || {
                for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                    *y = f(a, b);
                }
            },
        );
    });
    y.finish()
}

/// Sum of `f(a, b)` over all pairs of elements.
pub fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> f64 {
    let sums: Vec<f64> = a
        .par_chunks(BLOCK)
        .zip(b.par_chunks(BLOCK))
        .map(|(a, b)| {
            vectorised(
                #[inline(always)]
                || {
                    let mut terms = [0f32; BLOCK];
                    for (term, (&a, &b)) in terms.iter_mut().zip(a.iter().zip(b)) {
                        *term = f(a, b);
                    }
                    lane_sum(&terms[..a.len()])
                },
            )
        })
        .collect();
    sums.iter().sum()
}

/// For each of `parameters`, the sum of `f(parameter, x)` over a block of at most [`BLOCK`] elements.
pub fn block_sums<P: Copy>(block: &[f32], parameters: &[P], f: impl Fn(P, f32) -> f32) -> Vec<f64> {
    vectorised(
        #[inline(always)]
        || {
            let mut terms = [0f32; BLOCK];
            let terms = &mut terms[..block.len()];
            let mut sums = vec![0.0; parameters.len()];
            for (sum, &parameter) in sums.iter_mut().zip(parameters) {
                for (term, &x) in terms.iter_mut().zip(block) {
                    *term = f(parameter, x);
                }
                *sum = lane_sum(terms);
            }
            sums
        },
    )
}

/// Sum of a block in 16 lanes of f32, then in f64.
#[inline(always)]
pub fn lane_sum(block: &[f32]) -> f64 {
    let mut lanes = [0f32; 16];
    let whole = block.chunks_exact(16);
    for (lane, &term) in lanes.iter_mut().zip(whole.remainder()) {
        *lane += term;
    }
    for terms in whole {
        for (lane, &term) in lanes.iter_mut().zip(terms) {
            *lane += term;
        }
    }
    lanes.iter().map(|&lane| f64::from(lane)).sum()
}
