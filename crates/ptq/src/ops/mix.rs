//! Mini-batches cut from cached activations.

use super::composed;
#[cfg(feature = "cuda")]
use super::cuda;
use super::fake_quant::Mask;
use super::fresh::Fresh;
use super::kernel::{self, BLOCK};
use super::pinned::Pinned;
use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;
use tracing::trace_span;

/// Where rows are cut from.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    Tensor(&'a Tensor),
    Pinned(&'a Pinned),
}

impl<'a> From<&'a Tensor> for Rows<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Rows::Tensor(tensor)
    }
}

impl<'a> From<&'a Pinned> for Rows<'a> {
    fn from(pinned: &'a Pinned) -> Self {
        Rows::Pinned(pinned)
    }
}

impl Rows<'_> {
    fn dims(&self) -> &[usize] {
        match self {
            Rows::Tensor(tensor) => tensor.dims(),
            Rows::Pinned(pinned) => pinned.dims(),
        }
    }
}

/// Rows `rows` of `selected` where the mask selects, of `others` elsewhere: QDrop's element-wise mixed unit input.
///
/// Shapes: `selected` and `others` `(N, ...)`; result `(rows.len(), ...)` on their device, over whose elements the mask is indexed.
/// Gradient: none.
///
/// Errors: rows that are not there, other shapes, a mask of another length; page-locked rows and a mask given element by element.
pub fn mix_rows<'a>(
    selected: impl Into<Rows<'a>>,
    others: impl Into<Rows<'a>>,
    rows: &[u32],
    mask: &Mask,
) -> Result<Tensor> {
    let _span = trace_span!("rows of a mini-batch").entered();
    let (selected, others) = (selected.into(), others.into());
    let mut shape = selected.dims().to_vec();
    if selected.dims() != others.dims() || rows.iter().any(|&row| row as usize >= shape[0]) {
        bail!("mix-rows: rows out of {:?}, or another shape than {:?}", selected.dims(), others.dims());
    }
    let width = shape[1..].iter().product::<usize>();
    shape[0] = rows.len();
    mask.check(rows.len() * width)?;
    match (selected, others) {
        (Rows::Tensor(selected), Rows::Tensor(others)) if !mask.has_kernel(selected) => {
            composed::mix_rows(selected, others, rows, mask)
        }
        (Rows::Tensor(selected), Rows::Tensor(others)) if selected.device().is_cpu() => {
            Tensor::from_vec(on_host(selected, others, rows, width, mask)?, shape, selected.device())
        }
        _ => on_gpu([selected, others], rows, shape, mask),
    }
}

#[cfg(feature = "cuda")]
fn on_gpu([selected, others]: [Rows; 2], rows: &[u32], shape: Vec<usize>, mask: &Mask) -> Result<Tensor> {
    let device = match selected {
        Rows::Tensor(tensor) => tensor.device(),
        Rows::Pinned(pinned) => pinned.device(),
    };
    let candle_core::Device::Cuda(device) = device else { bail!("mix-rows: no kernel for {device:?}") };
    let width = shape[1..].iter().product();
    let mixed = with_rows(selected, |selected| {
        with_rows(others, |others| cuda::mix_rows(device, [selected, others], rows, width, mask))
    })?;
    Ok(cuda::tensor(mixed, shape, device))
}

#[cfg(feature = "cuda")]
fn with_rows<R>(rows: Rows, f: impl FnOnce(cuda::Rows) -> Result<R>) -> Result<R> {
    match rows {
        Rows::Tensor(tensor) => cuda::with_values(&tensor.contiguous()?, |values| f(cuda::Rows::from(values))),
        Rows::Pinned(pinned) => f(cuda::Rows::from(pinned.values())),
    }
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(_: [Rows; 2], _: &[u32], _: Vec<usize>, _: &Mask) -> Result<Tensor> {
    bail!("mix-rows: this build has no kernels for GPUs")
}

fn on_host(selected: &Tensor, others: &Tensor, rows: &[u32], width: usize, mask: &Mask) -> Result<Vec<f32>> {
    kernel::with_slice(selected, |selected| {
        kernel::with_slice(others, |others| {
            let mut mixed = Fresh::<f32>::new(rows.len() * width);
            mixed.par_chunks_mut(width).zip(rows).enumerate().for_each(|(position, (mixed, &row))| {
                let start = row as usize * width;
                let (selected, others) = (&selected[start..start + width], &others[start..start + width]);
                let blocks = mixed.chunks_mut(BLOCK).zip(selected.chunks(BLOCK).zip(others.chunks(BLOCK)));
                for (block, (mixed, (selected, others))) in blocks.enumerate() {
                    kernel::vectorised(
                        #[inline(always)]
                        || {
                            let mask = mask.block(position * width + block * BLOCK, mixed.len());
                            for ((mixed, (&a, &b)), &mask) in
                                mixed.iter_mut().zip(selected.iter().zip(others)).zip(&mask)
                            {
                                *mixed = if mask != 0 { a } else { b };
                            }
                        },
                    );
                }
            });
            Ok(mixed.finish())
        })
    })
}
