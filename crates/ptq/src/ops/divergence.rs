//! Divergence of predicted distributions.

use crate::error::Result;
use candle_core::{D, Tensor};

/// `KL(softmax(p) || softmax(q))`, mean over the rows of the logits `p` and `q` `(N, K)`. Gradient: to both.
pub fn kl_divergence(p: &Tensor, q: &Tensor) -> Result<Tensor> {
    let log_p = candle_nn::ops::log_softmax(p, D::Minus1)?;
    let log_q = candle_nn::ops::log_softmax(q, D::Minus1)?;
    let n = p.dim(0)? as f64;
    Ok(((log_p.exp()? * (log_p - log_q)?)?.sum_all()? / n)?)
}
