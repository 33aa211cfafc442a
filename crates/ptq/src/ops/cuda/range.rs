//! What a search of ranges asks of many values.

use super::launch::{BLOCK_ELEMENTS, Module, arguments, blocks_of_each, launch, module, u32_of};
use super::values::{uploaded, with_values};
use crate::ops::dispatch::has_kernels;
use candle_core::{CudaDevice, DType, Device, Result, Tensor};

const RANGE: Module = module!("range");

/// Candidates of a block, `CANDIDATES` of `kernels/range.cu`.
const GROUP: usize = 16;
/// Candidates of one launch: sums of every block of values are kept for each.
const MOST: usize = 1024;

/// Values on a GPU whose range is searched.
pub struct Searched {
    /// Contiguous f32.
    x: Tensor,
    device: CudaDevice,
}

impl Searched {
    /// `None` where no kernels of ours see the values of `x`. Errors: no memory for them one behind the other.
    pub fn of(x: &Tensor) -> Result<Option<Self>> {
        match x.device() {
            Device::Cuda(device) if has_kernels(x) && x.dtype() == DType::F32 => {
                Ok(Some(Self { x: x.contiguous()?, device: device.clone() }))
            }
            _ => Ok(None),
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.x.elem_count()
    }

    /// The smallest and the largest, NaN left out, and whether all are finite, of each of the blocks that they are looked at in.
    pub fn extremes(&self) -> Result<impl Iterator<Item = (f32, f32, bool)>> {
        let (n, blocks) = (self.count(), self.count().div_ceil(BLOCK_ELEMENTS));
        // SAFETY: each block writes its three numbers before they are read.
        let found = unsafe { self.device.alloc::<f32>(3 * blocks.max(1))? };
        with_values::<f32, _>(&self.x, |x| {
            // SAFETY: the kernel reads `n` values.
            unsafe { launch(&self.device, &RANGE, "extremes_of_blocks", blocks, &arguments![x, &found, n as u64]) }
        })?;
        let mut found = self.device.clone_dtoh(&found)?;
        found.truncate(3 * blocks);
        Ok((0..blocks).map(move |block| (found[3 * block], found[3 * block + 1], found[3 * block + 2] != 0.0)))
    }

    /// How many lie in each of `bins` bins of `width`, of which the first begins at `min` and the last has no end. They must be finite
    /// and at least `min`.
    pub fn histogram(&self, min: f64, width: f64, bins: usize) -> Result<Vec<u32>> {
        let counts = self.device.alloc_zeros::<u32>(bins)?;
        let n = self.count();
        with_values::<f32, _>(&self.x, |x| {
            let arguments = arguments![x, &counts, min, width, u32_of(bins)?, n as u64];
            // SAFETY: the kernel reads `n` values and counts in `bins` bins.
            unsafe { launch(&self.device, &RANGE, "histogram", blocks_of_each(n), &arguments) }
        })?;
        self.device.clone_dtoh(&counts)
    }

    /// For each scale and zero point, `sum |Q(x) - x|^exponent` over quantizers with levels `0..=highest`, added up as on the CPU.
    pub fn errors(&self, scales: &[f32], zero_points: &[f32], highest: f32, exponent: f32) -> Result<Vec<f64>> {
        let parts = scales.chunks(MOST).zip(zero_points.chunks(MOST));
        let errors = parts.map(|(scales, zero_points)| self.errors_of_some(scales, zero_points, highest, exponent));
        Ok(errors.collect::<Result<Vec<_>>>()?.concat())
    }

    fn errors_of_some(&self, scales: &[f32], zero_points: &[f32], highest: f32, exponent: f32) -> Result<Vec<f64>> {
        let (n, blocks, candidates) = (self.count(), self.count().div_ceil(BLOCK_ELEMENTS), scales.len());
        let (scales, zero_points) = (uploaded(scales, &self.device)?, uploaded(zero_points, &self.device)?);
        // SAFETY: the first kernel writes all of the partial sums, the second all errors.
        let (partial, errors) =
            unsafe { (self.device.alloc::<f64>((blocks * candidates).max(1))?, self.device.alloc::<f64>(candidates)?) };
        with_values::<f32, _>(&self.x, |x| {
            let count = u32_of(candidates)?;
            let of_blocks = arguments![x, &scales, &zero_points, &partial, highest, exponent, count, n as u64];
            let of_candidates = arguments![&partial, &errors, blocks as u64, count];
            // SAFETY: there are `n` values, and as many scales and zero points as candidates.
            unsafe {
                launch(&self.device, &RANGE, "range_errors", blocks * candidates.div_ceil(GROUP), &of_blocks)?;
                launch(&self.device, &RANGE, "add_blocks", blocks_of_each(candidates), &of_candidates)
            }
        })?;
        self.device.clone_dtoh(&errors)
    }
}
