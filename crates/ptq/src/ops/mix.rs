//! Mini-batches cut from cached activations.

use super::composed;
#[cfg(feature = "cuda")]
use super::cuda;
use super::fake_quant::Mask;
use super::fresh::Fresh;
use super::kernel::{self, BLOCK};
use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;
use tracing::trace_span;

/// Rows `rows` of `selected` where the mask selects, of `others` elsewhere: QDrop's element-wise mixed unit input.
///
/// Shapes: `selected` and `others` `(N, ...)`; result `(rows.len(), ...)`, over whose elements the mask is indexed.
/// Gradient: none.
pub fn mix_rows(selected: &Tensor, others: &Tensor, rows: &[u32], mask: &Mask) -> Result<Tensor> {
    let _span = trace_span!("rows of a mini-batch").entered();
    let mut shape = selected.dims().to_vec();
    if selected.shape() != others.shape() || rows.iter().any(|&row| row as usize >= shape[0]) {
        bail!("mix-rows: rows out of {:?}, or another shape than {:?}", selected.dims(), others.dims());
    }
    if !mask.has_kernel(selected) {
        return composed::mix_rows(selected, others, rows, mask);
    }
    let width = selected.elem_count() / shape[0];
    shape[0] = rows.len();
    mask.check(rows.len() * width)?;
    #[cfg(feature = "cuda")]
    if let candle_core::Device::Cuda(device) = selected.device() {
        let mixed = cuda::with_all([&selected.contiguous()?, &others.contiguous()?], |[selected, others]| {
            cuda::mix_rows(selected, others, rows, width, mask)
        })?;
        return Ok(cuda::tensor(mixed, shape, device));
    }
    let mixed = kernel::with_slice(selected, |selected| {
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
    })?;
    Tensor::from_vec(mixed, shape, selected.device())
}
