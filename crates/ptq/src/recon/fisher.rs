//! BRECQ's Fisher-diagonal weights (arXiv 2102.05426, section 3.3).

use super::activations::{Activations, Collector};
use super::event::Control;
use super::part::Part;
use super::rows::Rows;
use crate::error::Result;
use crate::graph::forward::{FullPrecision, forward, through};
use crate::ops::divergence::kl_divergence;
use crate::ops::tape::{self, Recording, scalar};
use crate::quant::model::{Mode, QuantModel};
use crate::recipe::{Loss, Recipe};
use candle_core::{Tensor, Var};
use tracing::info_span;

/// Images per gradient; the divergence is a mean over them.
const BATCH: usize = 32;

/// `|dL/dy| + damping` at the output `y` of `part`, which is what of unit `index` is trained on `rows`, one value per image and
/// element; `None` unless the recipe's loss is [`Loss::Fisher`].
///
/// `L = KL(softmax(f(x)) || softmax(f_q(x)))`, mean over a batch of 32, with all behind the part in full precision.
pub fn loss_weight(
    model: &QuantModel,
    index: usize,
    part: &Part,
    rows: &Rows,
    recipe: &Recipe,
    control: &Control,
) -> Result<Option<Activations>> {
    if recipe.loss != Loss::Fisher {
        return Ok(None);
    }
    let _span = info_span!("Fisher information").entered();
    let Rows { x_fp, x_q, .. } = rows;
    let n = x_fp.images()?;
    let mut weights = Collector::new(n, x_fp.memory());
    let unit_rest = part.rest(&model.units[index].fp)?;
    let behind = || unit_rest.iter().chain(model.units[index + 1..].iter().map(|unit| &unit.fp));
    for start in (0..n).step_by(BATCH) {
        control.check()?;
        let len = BATCH.min(n - start);
        let logits = |y: &Tensor| through(behind(), y);
        let fp = logits(&forward(&part.unit.fp, &x_fp.narrow(start, len)?, &FullPrecision)?)?;
        let y = part.unit.forward(&x_q.narrow(start, len)?, Mode::of_prefix(recipe.unit_input))?;
        let y = Var::from_tensor(&y.detach())?;
        let _recording = Recording::begin();
        let divergence = scalar(&logits(y.as_tensor())?, |logits| kl_divergence(&fp.detach(), logits))?;
        let gradient = tape::gradients(&divergence)?.remove(&y);
        let gradient = gradient.map_or_else(|| y.zeros_like(), Ok)?;
        weights.push(&(gradient.detach().abs()? + recipe.fisher_damping)?)?;
    }
    weights.finish().map(Some)
}
