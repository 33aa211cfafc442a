//! Steps of an unrolled Adam.

use super::launch::{Argument, BLOCK_ELEMENTS, Module, arguments, blocks_of_each, launch, module, u32_of};
use super::values::Values;
use candle_core::Result;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

const VIRTUAL_STEP: Module = module!("virtual_step");

/// Three results as long as each of `all`, which are equally long, by the kernel of this name with two more arguments.
pub fn virtual_step(
    all: &[Values<f64>],
    (kernel, factor, eps): (&'static str, f64, f64),
) -> Result<[CudaSlice<f64>; 3]> {
    let first = &all[0];
    let n = first.len();
    let results = [first.room(n)?, first.room(n)?, first.room(n)?];
    let mut arguments: Vec<Argument> = all.iter().map(Argument::from).collect();
    arguments.extend(results.iter().map(Argument::from));
    arguments.extend(arguments![factor, eps, n as u64]);
    // SAFETY: the kernels take their vectors in this order, all of the same length.
    unsafe { launch(first.device, &VIRTUAL_STEP, kernel, blocks_of_each(n), &arguments)? };
    Ok(results)
}

/// [`crate::ops::virtual_step::normalised`].
pub fn normalised(u: &Values<f64>) -> Result<(CudaSlice<f64>, CudaSlice<f64>)> {
    let (n, blocks) = (u.len(), u.len().div_ceil(BLOCK_ELEMENTS));
    let (partial, size, unit) = (u.room::<f64>(blocks.max(1))?, u.room::<f64>(1)?, u.room(n)?);
    // SAFETY: a partial result for each block, one element for the largest, `unit` as long as `u`.
    unsafe {
        launch(u.device, &VIRTUAL_STEP, "largest_of_blocks", blocks, &arguments![u, &partial, n as u64])?;
        launch(u.device, &VIRTUAL_STEP, "largest", 1, &arguments![&partial, &size, u32_of(blocks)?])?;
        launch(u.device, &VIRTUAL_STEP, "divide", blocks_of_each(n), &arguments![u, &size, &unit, n as u64])?;
    }
    Ok((unit, size))
}
