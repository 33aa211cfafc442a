//! Reconstruction: optimises the quantizers of one unit after the other, on activations that are computed once and
//! propagated from unit to unit.

pub mod event;
mod fisher;
mod layers;
pub mod propagate;
pub mod recipe;
pub mod schedule;
pub mod train;

use crate::error::Result;
use crate::experiment::{Bits, Setting};
use crate::graph::{Network, Role, Source};
use crate::quant::model::{Mode, QuantModel, QuantUnit};
use crate::rng::Stream;
use crate::store::record::UnitTrace;
use candle_core::Tensor;
use event::Control;
use propagate::{full_precision, in_batches};
use recipe::{Granularity, Prefix, Recipe};
use train::{Phase, Problem};

/// Quantizes `network` (BatchNorm already folded as the recipe says) with calibration images `calib` `(N, C, H, W)`.
///
/// Weights first, unit by unit; then, in methods with a phase for them, activation scales. Activation ranges are
/// searched before the phase that needs them.
pub fn quantize(
    network: &Network,
    calib: &Tensor,
    (bits, setting): (Bits, Setting),
    recipe: &Recipe,
    seed: u64,
    control: &Control,
) -> Result<(QuantModel, Vec<UnitTrace>)> {
    let mut model = QuantModel::new(network, bits, setting, recipe)?;
    let sample = calib.narrow(0, 0, recipe.act_search_images.min(calib.dim(0)?))?;
    let reconstructed = recipe.granularity != Granularity::None;
    let acts_come_later = reconstructed && !recipe.quantize_acts;
    if !acts_come_later {
        model.search_acts(&sample, recipe.act_search, recipe.act_search_prefix)?;
    }
    let mut traces = Vec::new();
    if reconstructed {
        Reconstruction { model: &model, calib, recipe, stream: Stream::new(seed), control }
            .train_weights(&mut traces)?;
    }
    if acts_come_later {
        model.search_acts(&sample, recipe.act_search, recipe.act_search_prefix)?;
    }
    if reconstructed && recipe.act_phase_iterations() > 0 {
        Reconstruction { model: &model, calib, recipe, stream: Stream::new(seed), control }.train_acts(&mut traces)?;
    }
    Ok((model, traces))
}

/// What both phases share.
struct Reconstruction<'a> {
    model: &'a QuantModel,
    calib: &'a Tensor,
    recipe: &'a Recipe,
    stream: Stream,
    control: &'a Control<'a>,
}

impl Reconstruction<'_> {
    /// Trains rounding, and the scales that the recipe trains along with it.
    fn train_weights(&self, traces: &mut Vec<UnitTrace>) -> Result<()> {
        let (model, recipe, control) = (self.model, self.recipe, self.control);
        let phase = Phase::weights(recipe);
        let prefix = Mode::of_prefix(recipe.unit_input);
        let (mut x_fp, mut x_q) = (self.calib.clone(), self.calib.clone());
        for (index, unit) in model.units.iter().enumerate() {
            control.unit(index, model.units.len(), &unit.unit.name);
            let y_fp = full_precision(&unit.unit, &x_fp, control)?;
            if self.is_trained(unit) {
                let stream = self.stream.named(&unit.unit.name);
                match recipe.granularity {
                    Granularity::None => {}
                    Granularity::Block => {
                        let weight = fisher::loss_weight(model, index, &x_fp, &x_q, recipe, control)?;
                        let problem =
                            Problem { unit, x_fp: &x_fp, x_q: &x_q, y_fp: &y_fp, loss_weight: weight.as_ref() };
                        traces.extend(train::train(&problem, &phase, stream, control)?);
                    }
                    Granularity::Layer => self.train_layers(unit, (&x_fp, &x_q), &phase, traces)?,
                }
            }
            x_q = match recipe.unit_input {
                Prefix::FullPrecision => y_fp.clone(),
                Prefix::QuantizedWeights | Prefix::Quantized => in_batches(&x_q, control, |x| unit.forward(x, prefix))?,
            };
            x_fp = y_fp;
        }
        Ok(())
    }

    /// The layers of one unit in order, each reading what the layers before it, already trained, compute.
    fn train_layers(
        &self,
        unit: &QuantUnit,
        (x_fp, x_q): (&Tensor, &Tensor),
        phase: &Phase,
        traces: &mut Vec<UnitTrace>,
    ) -> Result<()> {
        let control = self.control;
        let prefix = Mode::of_prefix(self.recipe.unit_input);
        for layer in layers::layers(unit) {
            let full = |source| propagate::full_precision_until(&unit.unit, x_fp, source, control);
            let (layer_fp, y_fp) = (full(layer.input)?, full(Source::Node(layer.last))?);
            let layer_q = in_batches(x_q, control, |x| unit.read(x, prefix, layer.input))?;
            let problem = Problem { unit: &layer.unit, x_fp: &layer_fp, x_q: &layer_q, y_fp: &y_fp, loss_weight: None };
            traces.extend(train::train(&problem, phase, self.stream.named(&unit.unit.name), control)?);
        }
        Ok(())
    }

    /// Trains activation scales alone, each unit on full-precision inputs and targets (BRECQ's second phase).
    fn train_acts(&self, traces: &mut Vec<UnitTrace>) -> Result<()> {
        let control = self.control;
        let phase = Phase::acts(self.recipe);
        let mut x_fp = self.calib.clone();
        for (index, unit) in self.model.units.iter().enumerate() {
            control.unit(index, self.model.units.len(), &unit.unit.name);
            let y_fp = full_precision(&unit.unit, &x_fp, control)?;
            if self.is_trained(unit) {
                let problem = Problem { unit, x_fp: &x_fp, x_q: &x_fp, y_fp: &y_fp, loss_weight: None };
                // A stream of its own: the phases of a unit must not draw the same mini-batches.
                let stream = self.stream.named(&unit.unit.name).named(phase.name);
                traces.extend(train::train(&problem, &phase, stream, control)?);
            }
            x_fp = y_fp;
        }
        Ok(())
    }

    /// Whether the recipe optimises this unit; a stem may be left rounded to nearest.
    fn is_trained(&self, unit: &QuantUnit) -> bool {
        unit.unit.role != Role::Stem || self.recipe.reconstruct_stem
    }
}
