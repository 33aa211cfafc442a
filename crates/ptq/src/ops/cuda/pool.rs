//! Max pooling.

use super::launch::{Module, arguments, blocks_of_each, launch, module, u32_of};
use super::values::Values;
use crate::ops::windows::Windows;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Result, bail};

const POOL: Module = module!("pool");

fn window(windows: &Windows) -> Result<[u32; 7]> {
    let Windows { h, w, out_h, out_w, pool, .. } = *windows;
    let mut sizes = [0; 7];
    for (to, size) in sizes.iter_mut().zip([h, w, out_h, out_w, pool.kernel, pool.stride, pool.padding]) {
        *to = u32_of(size)?;
    }
    Ok(sizes)
}

fn check(what: &str, have: usize, need: usize) -> Result<()> {
    if have == need { Ok(()) } else { bail!("max_pool2d: {have} elements of {what}, not {need}") }
}

/// For every output value the position of its maximum in its input plane.
pub fn max_pool_winners(x: &Values, windows: &Windows) -> Result<CudaSlice<u32>> {
    check("the input", x.len(), windows.input().elem_count())?;
    let n = windows.output().elem_count();
    let winners = x.room::<u32>(n)?;
    let arguments = arguments![x, &winners, window(windows)?, n as u64];
    // SAFETY: lengths are those of the windows.
    unsafe { launch(x.device, &POOL, "max_pool_winners", blocks_of_each(n), &arguments)? };
    Ok(winners)
}

/// The values of `x` at `winners`, which [`max_pool_winners`] found in a tensor of the same shape.
pub fn max_pool_pick(x: &Values, winners: &Values<u32>, windows: &Windows) -> Result<CudaSlice<f32>> {
    let n = windows.output().elem_count();
    check("the input", x.len(), windows.input().elem_count())?;
    check("the winners", winners.len(), n)?;
    let y = x.room(n)?;
    let arguments = arguments![x, winners, &y, window(windows)?, n as u64];
    // SAFETY: lengths are those of the windows, and winners lie inside their planes.
    unsafe { launch(x.device, &POOL, "max_pool_pick", blocks_of_each(n), &arguments)? };
    Ok(y)
}

/// The adjoint of [`max_pool_pick`].
pub fn max_pool_put(gy: &Values, winners: &Values<u32>, windows: &Windows) -> Result<CudaSlice<f32>> {
    let n = windows.input().elem_count();
    check("the gradient", gy.len(), windows.output().elem_count())?;
    check("the winners", winners.len(), gy.len())?;
    let gx = gy.room(n)?;
    let arguments = arguments![gy, winners, &gx, window(windows)?, n as u64];
    // SAFETY: lengths are those of the windows.
    unsafe { launch(gy.device, &POOL, "max_pool_put", blocks_of_each(n), &arguments)? };
    Ok(gx)
}
