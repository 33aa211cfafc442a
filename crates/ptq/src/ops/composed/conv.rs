//! Convolutions in groups without a loop over the groups, which is what Candle's own does, forwards and backwards.

use super::views::{Sliding, shifted_views};
use candle_core::{Result, Tensor};

/// A convolution in which every channel is a group of its own: a sum over the positions in the window.
///
/// Shapes: `x` `(N, C, H, W)`, `w` `(C, 1, K_h, K_w)`; result `(N, C, H', W')`. Gradient: to both, to any order.
pub(in crate::ops) fn depthwise_conv2d(x: &Tensor, w: &Tensor, sliding: Sliding) -> Result<Tensor> {
    let taps = w.flatten_from(2)?;
    let (channels, _, count) = taps.dims3()?;
    let mut sum: Option<Tensor> = None;
    for (tap, view) in (0..count).zip(shifted_views(x, sliding)?) {
        let term = view.broadcast_mul(&taps.narrow(2, tap, 1)?.reshape((1, channels, 1, 1))?)?;
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    sum.map_or_else(|| candle_core::bail!("a convolution with an empty window"), Ok)
}

/// A convolution in `groups` as one product of a batch of matrices, one per group.
///
/// Shapes: `x` `(N, C_in, H, W)`, `w` `(C_out, C_in / groups, K_h, K_w)`; result `(N, C_out, H', W')`. It holds
/// `K_h K_w` copies of `x`. Gradient: to both, to any order.
pub(in crate::ops) fn grouped_conv2d(x: &Tensor, w: &Tensor, groups: usize, sliding: Sliding) -> Result<Tensor> {
    let (n, _, _, _) = x.dims4()?;
    let (c_out, c_in_of_group, k_h, k_w) = w.dims4()?;
    let (out_h, out_w) = sliding.out;
    let rows = c_in_of_group * k_h * k_w;
    let views = Tensor::stack(&shifted_views(x, sliding)?, 2)?;
    let columns = views.reshape((n, groups, rows, out_h * out_w))?.permute((1, 2, 0, 3))?.contiguous()?;
    let columns = columns.reshape((groups, rows, n * out_h * out_w))?;
    let y = w.reshape((groups, c_out / groups, rows))?.matmul(&columns)?;
    let y = y.reshape((c_out, n, out_h, out_w))?.transpose(0, 1)?;
    y.contiguous()
}
