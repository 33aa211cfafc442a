//! Which elements of a tensor an operation acts on.

use super::dispatch::has_kernels;
use super::kernel::BLOCK;
use crate::rng;
use candle_core::{Result, Tensor, bail};
use std::sync::Arc;

/// Which elements an operation acts on.
#[derive(Clone, Debug)]
pub enum Mask {
    All,
    /// Those whose random bits ([`rng::element_bits`]) are below a threshold.
    Keyed {
        key: [u32; 2],
        threshold: u32,
    },
    /// Those that are not 0 here, in row-major order.
    Given(Arc<Vec<u8>>),
}

impl Mask {
    /// A given mask must have one element per element.
    pub fn check(&self, elements: usize) -> Result<()> {
        match self {
            Mask::Given(mask) if mask.len() != elements => {
                bail!("a mask of {} elements for a tensor of {elements}", mask.len())
            }
            _ => Ok(()),
        }
    }

    /// Whether a kernel applies it to `x`; those of GPUs take no mask that is given element by element.
    pub fn has_kernel(&self, x: &Tensor) -> bool {
        has_kernels(x) && (x.device().is_cpu() || !matches!(self, Mask::Given(_)))
    }

    /// Whether the elements from `start` on are selected, as numbers that are not 0; at most one block of them.
    ///
    /// A block at a time, so that the loops over elements have no branch on the kind of mask.
    #[inline(always)]
    pub fn block(&self, start: usize, len: usize) -> [u32; BLOCK] {
        let mut selected = [1u32; BLOCK];
        match self {
            Mask::All => {}
            Mask::Keyed { key, threshold } => {
                for (i, selected) in selected[..len].iter_mut().enumerate() {
                    *selected = u32::from(rng::element_bits(*key, (start + i) as u32) < *threshold);
                }
            }
            Mask::Given(mask) => {
                for (selected, &bit) in selected[..len].iter_mut().zip(&mask[start..start + len]) {
                    *selected = u32::from(bit);
                }
            }
        }
        selected
    }
}
