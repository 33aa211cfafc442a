//! BRECQ's Fisher-diagonal weights (arXiv 2102.05426, section 3.3).

use super::activations::{Activations, Collector};
use super::event::Control;
use super::recipe::{Loss, Recipe};
use crate::error::Result;
use crate::graph::forward::{FullPrecision, forward, through};
use crate::ops::divergence::kl_divergence;
use crate::quant::model::{Mode, QuantModel};
use candle_core::{Tensor, Var};
use tracing::info_span;

/// Images per gradient; the divergence is a mean over them.
const BATCH: usize = 32;

/// `|dL/dy| + damping` at the output `y` of unit `index`, one value per image and element; `None` unless the recipe's
/// loss is [`Loss::Fisher`].
///
/// `L = KL(softmax(f(x)) || softmax(f_q(x)))`, mean over a batch of 32, with the units after `index` in full precision.
pub fn loss_weight(
    model: &QuantModel,
    index: usize,
    x_fp: &Activations,
    x_q: &Activations,
    recipe: &Recipe,
    control: &Control,
) -> Result<Option<Activations>> {
    if recipe.loss != Loss::Fisher {
        return Ok(None);
    }
    let _span = info_span!("Fisher information").entered();
    let n = x_fp.images()?;
    let mut weights = Collector::new(n, x_fp.memory());
    for start in (0..n).step_by(BATCH) {
        control.check()?;
        let len = BATCH.min(n - start);
        let logits = |y: &Tensor| through(model.units[index + 1..].iter().map(|unit| &unit.unit), y);
        let fp = logits(&forward(&model.units[index].unit, &x_fp.narrow(start, len)?, &FullPrecision)?)?;
        let y = model.units[index].forward(&x_q.narrow(start, len)?, Mode::of_prefix(recipe.unit_input))?;
        let y = Var::from_tensor(&y.detach())?;
        let divergence = kl_divergence(&fp.detach(), &logits(y.as_tensor())?)?;
        let gradient = divergence.backward()?.remove(&y);
        let gradient = gradient.map_or_else(|| y.zeros_like(), Ok)?;
        weights.push(&(gradient.detach().abs()? + recipe.fisher_damping)?)?;
    }
    weights.finish().map(Some)
}
