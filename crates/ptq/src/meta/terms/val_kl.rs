//! The validation term: the updated quantized network must predict as the full-precision one does.

use super::Outer;
use crate::error::Result;
use crate::meta::config::Meta;
use crate::ops::divergence::kl_divergence;
use candle_core::Tensor;

/// `KL(softmax(f(v) / t) || softmax(f_q(v) / t))`, mean over the images, `t` the temperature; not multiplied by `t^2`.
///
/// Result: scalar.  Gradient: to `logits_q`.  Source: MetaAug, equation of the validation loss; published code.
pub(super) fn loss(outer: &Outer, meta: &Meta) -> Result<Tensor> {
    let t = meta.temperature;
    kl_divergence(&(outer.logits_fp.detach() / t)?, &(outer.logits_q / t)?)
}
