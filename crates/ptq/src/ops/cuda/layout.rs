//! Values that change places.

use super::launch::{Module, arguments, blocks_of_each, launch, module, u32_of};
use super::values::Values;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Result, bail};

const LAYOUT: Module = module!("layout");

/// [`crate::ops::layout::pixel_shuffle`] where `to_pixels`, else its inverse; `h` and `w` are those of the tensor with more channels.
pub fn shuffle(x: &Values, (h, w): (usize, usize), to_pixels: bool) -> Result<CudaSlice<f32>> {
    if !x.len().is_multiple_of((4 * h * w).max(1)) {
        bail!("pixel-shuffle: {} values for planes of {h} by {w}", x.len());
    }
    // Kernels take positions in rows and columns of either side as numbers of 32 bits.
    u32_of(2 * h)?;
    u32_of(2 * w)?;
    let y = x.room(x.len())?;
    let kernel = if to_pixels { "pixels_from_channels" } else { "channels_from_pixels" };
    let arguments = arguments![x, &y, u32_of(h)?, u32_of(w)?, x.len() as u64];
    // SAFETY: a permutation of whole groups of four planes.
    unsafe { launch(x.device, &LAYOUT, kernel, blocks_of_each(x.len()), &arguments)? };
    Ok(y)
}

/// [`crate::ops::layout::join_channels`] for images of `of_a` and `of_b` values.
pub fn join(a: &Values, b: &Values, (of_a, of_b): (usize, usize)) -> Result<CudaSlice<f32>> {
    if a.len() * of_b != b.len() * of_a {
        bail!("join-channels: {} values beside {}", a.len(), b.len());
    }
    // The kernel takes positions in a joined image as numbers of 32 bits.
    u32_of(of_a + of_b)?;
    let y = a.room(a.len() + b.len())?;
    let arguments = arguments![a, b, &y, u32_of(of_a)?, u32_of(of_b)?, y.len() as u64];
    // SAFETY: as many images on both sides.
    unsafe { launch(a.device, &LAYOUT, "joined", blocks_of_each(y.len()), &arguments)? };
    Ok(y)
}
