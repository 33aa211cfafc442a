//! Sums of squares of several vectors at a time.

use super::launch::{Argument, BLOCK_ELEMENTS, MOST, Module, Vectors, address, launch, module, u32_of};
use super::values::with_values;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, Result, Tensor};

const SQUARES: Module = module!("squares");

/// [`crate::ops::squares::sums_of_squares`] of contiguous tensors on `device`.
pub fn sums_of_squares(tensors: &[Tensor], device: &CudaDevice) -> Result<CudaSlice<f32>> {
    // SAFETY: every element is written below.
    let result = unsafe { device.alloc::<f32>(tensors.len())? };
    for (chunk, tensors) in tensors.chunks(MOST).enumerate() {
        let mut all = Vectors { x: [0; MOST], end: [0; MOST], len: [0; MOST], count: tensors.len() as u32 };
        let mut blocks = 0;
        for (i, tensor) in tensors.iter().enumerate() {
            let len = tensor.elem_count();
            blocks += len.div_ceil(BLOCK_ELEMENTS);
            all.x[i] = with_values::<f32, _>(tensor, |values| Ok(address(&values.elements)))?;
            (all.end[i], all.len[i]) = (u32_of(blocks)?, u32_of(len)?);
        }
        // SAFETY: the first kernel writes it all before the second reads it.
        let partial = unsafe { device.alloc::<f64>(blocks.max(1))? };
        let part = result.slice(chunk * MOST..chunk * MOST + tensors.len());
        let vectors = || Argument::Vectors(Box::new(all));
        let of_blocks = [vectors(), Argument::from(&partial)];
        let of_vectors = [vectors(), Argument::from(&partial), Argument::from(&part)];
        // SAFETY: pointers and lengths are those of live tensors, and there is room for a number of each block and vector.
        unsafe {
            launch(device, &SQUARES, "squares_of_blocks", blocks, &of_blocks)?;
            launch(device, &SQUARES, "squares_of_vectors", tensors.len(), &of_vectors)?;
        }
    }
    Ok(result)
}
