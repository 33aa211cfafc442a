//! The formulas of this module's operations from Candle's own, for devices that our kernels do not run on.
//!
//! `dispatch` sends operations here where there is no kernel, or with `HARNESS_COMPOSED=1`; the tests compare the two on the CPU, values and
//! gradients of each operation and whole cells of every method (`tests/it/composed.rs`). What goes between host and device is said with
//! each function: masks, since their random bits are made by [`crate::rng`], the same on every device.

mod conv;
mod quant;
#[cfg(test)]
mod tests;
mod views;

pub(super) use conv::{depthwise_conv2d, grouped_conv2d};
pub(super) use quant::{
    fake_quant, linearised, mask_of, rounded_weight, rounding_regulariser, straight_through_levels, stretched_sigmoid,
};
pub(super) use views::{Sliding, shifted_views};

use super::mask::Mask;
use candle_core::{Result, Tensor};

/// [`super::relu::clipped_relu`], exact in every order.
pub(super) fn clipped_relu(x: &Tensor, upper: f32) -> Result<Tensor> {
    // Not Candle's `relu` and `minimum`: on a GPU they hide NaN behind a bound.
    let zeros = x.zeros_like()?;
    let raised = x.le(0f64)?.where_cond(&zeros, x)?;
    match upper.is_finite() {
        true => x.ge(f64::from(upper))?.where_cond(&zeros.affine(1.0, f64::from(upper))?, &raised),
        false => Ok(raised),
    }
}

/// [`super::relu::gate`].
pub(super) fn gate(t: &Tensor, y: &Tensor, upper: f32) -> Result<Tensor> {
    let y = y.detach();
    let open = (y.gt(0f64)? * y.lt(f64::from(upper))?)?;
    open.where_cond(t, &t.zeros_like()?)
}

/// [`super::mix::mix_rows`]; the rows and the mask go to the device.
pub(super) fn mix_rows(selected: &Tensor, others: &Tensor, rows: &[u32], mask: &Mask) -> Result<Tensor> {
    let index = Tensor::new(rows, selected.device())?;
    let selected = selected.index_select(&index, 0)?;
    match mask_of(mask, &selected)? {
        None => Ok(selected),
        Some(mask) => mask.where_cond(&selected, &others.index_select(&index, 0)?),
    }
}

/// [`super::recon_error::recon_error`]; `means` is the number of batch entries times positions.
pub(super) fn recon_error(y_q: &Tensor, y_fp: &Tensor, weight: Option<&Tensor>, p: f64, means: f64) -> Result<Tensor> {
    let difference = (y_q - y_fp.detach())?;
    let difference = match weight {
        Some(weight) => (difference * weight.detach())?,
        None => difference,
    };
    let powers = if p == 2.0 { difference.sqr()? } else { difference.abs()?.powf(p)? };
    powers.sum_all()? / means
}
