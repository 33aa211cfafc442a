//! Sliding windows as shifted, strided views of the whole input: one for each position in the window.

use crate::ops::tape::plain::{contiguous, narrow, pad_with_zeros, reshape};
use candle_core::{Result, Tensor};

/// Windows over an image: size, stride, zero padding on each side, and how many there are.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Sliding {
    pub kernel: (usize, usize),
    pub stride: usize,
    pub padding: usize,
    pub out: (usize, usize),
}

/// One `(N, C, H', W')` view of `x` `(N, C, H, W)`, padded with zeros, for each position in the window, in reading order.
///
/// Gradient: flows to `x`, to any order.
pub(in crate::ops) fn shifted_views(x: &Tensor, sliding: Sliding) -> Result<Vec<Tensor>> {
    let Sliding { kernel: (k_h, k_w), stride, padding, out: (out_h, out_w) } = sliding;
    let (n, c, h, w) = x.dims4()?;
    // Room to cut `out * stride` rows from the last row of the window on.
    let after = |size: usize, kernel: usize, out: usize| (kernel - 1 + out * stride).saturating_sub(size + padding);
    let padded = pad_with_zeros(x, 2, padding, after(h, k_h, out_h))?;
    let padded = pad_with_zeros(&padded, 3, padding, after(w, k_w, out_w))?;
    let mut views = Vec::with_capacity(k_h * k_w);
    for (a, b) in (0..k_h).flat_map(|a| (0..k_w).map(move |b| (a, b))) {
        let rows = contiguous(&narrow(&narrow(&padded, 2, a, out_h * stride)?, 3, b, out_w * stride)?)?;
        let split = reshape(&rows, &[n, c, out_h, stride, out_w, stride])?;
        let first = contiguous(&narrow(&narrow(&split, 3, 0, 1)?, 5, 0, 1)?)?;
        views.push(reshape(&first, (n, c, out_h, out_w))?);
    }
    Ok(views)
}
