//! Cross-entropy with the labels of the original images: what the validation term would be with labels.

use super::Outer;
use crate::error::{Error, Result};
use crate::meta::config::Meta;
use crate::ops::device::put;
use candle_core::{D, Tensor};

/// `-mean(log softmax(f_q(v))[label])`.
///
/// Result: scalar.  Gradient: to `logits_q`.  Errors: as many labels as images are needed, each a class.
pub(super) fn loss(outer: &Outer, _meta: &Meta) -> Result<Tensor> {
    let (n, classes) = outer.logits_q.dims2()?;
    if outer.labels.len() != n || outer.labels.iter().any(|&label| label as usize >= classes) {
        let problem = format!("{} labels for {n} images of {classes} classes", outer.labels.len());
        return Err(Error::Shape { op: "label-ce", problem });
    }
    // A product with one-hot rows: gathering has no second derivative.
    let mut one_hot = vec![0f64; n * classes];
    for (row, &label) in outer.labels.iter().enumerate() {
        one_hot[row * classes + label as usize] = 1.0;
    }
    let one_hot = put(&one_hot, (n, classes), outer.logits_q.device())?.to_dtype(outer.logits_q.dtype())?;
    let log_q = candle_nn::ops::log_softmax(outer.logits_q, D::Minus1)?;
    Ok(((log_q * one_hot)?.sum_all()? / -(n as f64))?)
}
