//! Prediction difference (PD-Quant, arXiv 2212.07048): what a unit's error does to the output of the network.

use crate::error::Result;
use crate::graph::Unit;
use crate::graph::forward::through;
use crate::ops::divergence::kl_divergence;
use crate::ops::tape::scalar;
use crate::quant::model::QuantUnit;
use candle_core::Tensor;

/// How the output of one unit is judged by the network behind it.
#[derive(Clone, Copy)]
pub struct Prediction<'a> {
    /// What its unit does with its output, if it is a part of one.
    pub unit_rest: Option<&'a Unit>,
    /// The units behind it, which stay in full precision.
    pub rest: &'a [QuantUnit],
    /// `1 / lambda_r`.
    pub weight: f64,
    pub temperature: f64,
}

impl Prediction<'_> {
    /// `weight * KL(softmax(logits / T) || softmax(rest(y_q) / T))`, mean over the batch.
    ///
    /// Shapes: `y_q` `(N, ...)`, the unit's output; `logits` `(N, K)`, those of the full-precision network; result: scalar.
    /// Gradient: to `y_q`.  Source: published `LossFunction` of `block_recon.py`, which has no factor `T^2`.
    pub fn difference(&self, y_q: &Tensor, logits: &Tensor) -> Result<Tensor> {
        let q = through(self.unit_rest.into_iter().chain(self.rest.iter().map(|unit| &unit.fp)), y_q)?;
        scalar(&q, |q| {
            let divergence = kl_divergence(&(logits / self.temperature)?, &(q / self.temperature)?)?;
            Ok((divergence * self.weight)?)
        })
    }
}
