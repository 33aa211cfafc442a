//! Quantizes a network: optimises the quantizers of one unit after the other, on activations that are computed once and
//! propagated from unit to unit.

pub mod added;
pub mod resume;
#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::graph::{Network, Role};
use crate::meta::nets::TransformNet;
use crate::meta::train::Originals;
use crate::quant::model::{Mode, QuantModel, QuantUnit};
use crate::recipe::{Bits, Granularity, Prefix, Recipe, SearchPrefix, Setting};
use crate::recon::activations::{Activations, Memory};
use crate::recon::correction::Correction;
use crate::recon::event::Control;
use crate::recon::fisher;
use crate::recon::midway::Loops;
use crate::recon::part::Part;
use crate::recon::prediction::Prediction;
use crate::recon::propagate::full_precision;
use crate::recon::rows::Rows;
use crate::recon::start::{prepare, search_ranges};
use crate::recon::train::{self, Phase, Problem};
use crate::rng::Stream;
use added::Added;
use candle_core::Tensor;
use resume::{Resumable, TrainedUnits};
use tracing::info_span;

/// What a network is quantized on.
pub struct Calibration<'a> {
    /// `(N, C, H, W)`.
    pub images: &'a Tensor,
    /// Where activations computed from them are kept.
    pub memory: &'a Memory,
    /// The network as it was trained: the statistics of its BatchNorm layers say what the images should look like.
    pub trained: &'a Network,
    /// Images that join them while a unit is reconstructed.
    pub added: Added<'a>,
}

/// Quantizes `network` (BatchNorm already folded as the recipe says).
///
/// Weights first, unit by unit; then, in methods with a phase for them, activation scales. Activation ranges are
/// searched before the phase that needs them.
pub fn quantize(
    network: &Network,
    calib: &Calibration,
    (bits, setting): (Bits, Setting),
    recipe: &Recipe,
    seed: u64,
    control: &Control,
) -> Result<QuantModel> {
    let model = prepare(network, calib.images, (bits, setting), recipe)?;
    reconstruct(model, calib, recipe, seed, None, control)
}

/// Reconstructs what [`prepare`] made for the same recipe, and goes on from what is kept of an earlier attempt: with the same result as
/// without, bit for bit, where the two compute with the same instructions.
pub fn reconstruct(
    mut model: QuantModel,
    calib: &Calibration,
    recipe: &Recipe,
    seed: u64,
    kept: Option<&dyn TrainedUnits>,
    control: &Control,
) -> Result<QuantModel> {
    if recipe.granularity == Granularity::None {
        return Ok(model);
    }
    let unkept = Loops::unkept();
    let reconstruction = Reconstruction { calib, recipe, stream: Stream::new(seed), kept, control, loops: &unkept };
    reconstruction.train_weights(&mut model)?;
    if !recipe.quantize_acts {
        search_ranges(&mut model, calib.images, recipe)?;
    }
    if recipe.act_phase_iterations() > 0 {
        reconstruction.train_acts(&mut model)?;
    }
    Ok(model)
}

/// What both phases share.
#[derive(Clone, Copy)]
struct Reconstruction<'a> {
    calib: &'a Calibration<'a>,
    recipe: &'a Recipe,
    stream: Stream,
    kept: Option<&'a dyn TrainedUnits>,
    control: &'a Control<'a>,
    /// Of the unit whose turn it is.
    loops: &'a Loops<'a>,
}

impl Reconstruction<'_> {
    /// Trains rounding, and the scales that the recipe trains along with it.
    fn train_weights(&self, model: &mut QuantModel) -> Result<()> {
        let (recipe, control) = (self.recipe, self.control);
        let phase = Phase::weights(recipe);
        let prefix = Mode::of_prefix(recipe.unit_input);
        let added = &self.calib.added;
        let judges = recipe.prediction_weight > 0.0;
        let originals = (judges || added.reaches(Role::Block))
            .then(|| Originals::new(model, self.calib.images, added.labels, control));
        let mut originals = originals.transpose()?;
        if let (Some(transform), Some(originals)) = (&added.transform, &mut originals) {
            originals.start_acts(transform.meta, model, recipe)?;
        }
        let logits = originals.as_ref().map(|originals| Activations::new(&originals.logits, self.calib.memory));
        let mut x_fp = Activations::new(self.calib.images, self.calib.memory);
        let mut x_q = x_fp.clone();
        for index in 0..model.units.len() {
            let unit = &model.units[index].fp;
            let _span = info_span!("unit", name = unit.name).entered();
            let y_fp = info_span!("full-precision outputs").in_scope(|| full_precision(unit, &x_fp, control))?;
            let logits = logits.clone().filter(|_| judges);
            let rows = Rows { x_fp, x_q, y_fp, logits };
            let net = added.transform.as_ref().map(|transform| transform.net);
            self.resumable(phase.name, index, net).or_train(model, control, |model, control, loops| {
                self.under(control, loops).turn(model, index, &rows, &phase, originals.as_ref())
            })?;
            let unit = &model.units[index];
            let Rows { x_fp: done, x_q: read, y_fp, .. } = rows;
            // Before the next input takes its place.
            drop(done);
            x_q = match recipe.unit_input {
                Prefix::FullPrecision => y_fp.clone(),
                Prefix::QuantizedWeights | Prefix::Quantized => {
                    let _span = info_span!("quantized outputs").entered();
                    read.map(control, |x| unit.forward_checked(x, prefix))?
                }
            };
            x_fp = y_fp;
        }
        Ok(())
    }

    /// The same, watched by another, with the loops of a unit.
    fn under<'a>(&'a self, control: &'a Control<'a>, loops: &'a Loops<'a>) -> Reconstruction<'a> {
        Reconstruction { control, loops, ..*self }
    }

    fn resumable<'a>(&'a self, phase: &'a str, index: usize, net: Option<&'a TransformNet>) -> Resumable<'a> {
        Resumable { kept: self.kept, phase, index, net, device: self.calib.images.device() }
    }

    /// What is done in `phase` when it is the turn of unit `index`, whose inputs and outputs for the calibration images are `rows`.
    fn turn(
        &self,
        model: &mut QuantModel,
        index: usize,
        rows: &Rows,
        phase: &Phase,
        originals: Option<&Originals>,
    ) -> Result<()> {
        let (added, control) = (&self.calib.added, self.control);
        self.search_unit(&mut model.units[index], &rows.x_q, phase)?;
        let unit = &model.units[index];
        control.unit(index, model.units.len(), &unit.fp.name);
        if !self.is_trained(unit) {
            return Ok(());
        }
        let Some(originals) = originals.filter(|_| added.reaches(unit.fp.role)) else {
            return self.train_unit(model, index, rows, phase);
        };
        let new = added.rows(model, index, (originals, &rows.x_q), self.recipe, (self.stream, control, self.loops))?;
        let joined = rows.and(&new)?;
        // A pass over the sample keeps its number of steps.
        let batch = phase.batch * joined.x_fp.images()? / rows.x_fp.images()?;
        self.train_unit(model, index, &joined, &Phase { batch, ..phase.clone() })
    }

    /// Trains the weights of unit `index` on `rows`.
    fn train_unit(&self, model: &QuantModel, index: usize, rows: &Rows, phase: &Phase) -> Result<()> {
        let unit = &model.units[index];
        let (recipe, control) = (self.recipe, self.control);
        match recipe.granularity {
            Granularity::None => Ok(()),
            Granularity::Block => {
                let part = Part::of_unit(unit, recipe);
                let of_part = |rows: &Rows| part.rows(unit, rows, recipe.unit_input, control);
                let mut seen = of_part(rows)?;
                let weight = fisher::loss_weight(model, index, &part, &seen, recipe, control)?;
                if let Some((x_fp, y_fp)) = self.corrected(unit, index, &rows.x_fp)? {
                    seen = of_part(&Rows { x_fp, x_q: rows.x_q.clone(), y_fp, logits: rows.logits.clone() })?;
                }
                let Rows { x_fp, x_q, y_fp, logits } = &seen;
                let unit_rest = part.rest(&unit.fp)?;
                let prediction = Prediction {
                    unit_rest: unit_rest.as_ref(),
                    rest: &model.units[index + 1..],
                    weight: recipe.prediction_weight,
                    temperature: recipe.prediction_temperature,
                };
                let problem = Problem {
                    unit: &part.unit,
                    x_fp,
                    x_q,
                    y_fp,
                    loss_weight: weight.as_ref(),
                    prediction: logits.as_ref().map(|logits| (prediction, logits)),
                };
                train::train(&problem, phase, self.stream.named(&unit.fp.name), control, self.loops)
            }
            Granularity::Layer => {
                let stream = self.stream.named(&unit.fp.name);
                self.train_parts(unit, (rows, recipe.unit_input), phase, stream)
            }
        }
    }

    /// The full-precision inputs of unit `index` as the recipe corrects them, and the outputs for them.
    fn corrected(
        &self,
        unit: &QuantUnit,
        index: usize,
        x_fp: &Activations,
    ) -> Result<Option<(Activations, Activations)>> {
        let Some(correction) = Correction::of(self.recipe) else { return Ok(None) };
        let x = correction.correct(&self.calib.trained.units[index], x_fp, self.control, self.loops)?;
        let y = full_precision(&unit.fp, &x, self.control)?;
        Ok(Some((x, y)))
    }

    /// Searches the ranges of a unit whose turn has come, if the recipe leaves it until then.
    fn search_unit(&self, unit: &mut QuantUnit, x_q: &Activations, phase: &Phase) -> Result<()> {
        let recipe = self.recipe;
        if !recipe.quantize_acts || !recipe.act_search_prefix.waits() {
            return Ok(());
        }
        let _span = info_span!("activation ranges").entered();
        let x = x_q.narrow(0, recipe.act_search_images.min(x_q.images()?))?;
        match self.is_trained(unit) && recipe.act_search_prefix == SearchPrefix::Reconstructed {
            true => phase.search_acts(unit, &x, recipe.act_search, self.stream.named(&unit.fp.name)),
            false => unit.search_acts(&x, recipe.act_search, Mode::HARD).map(drop),
        }
    }

    /// The parts of one unit that are trained, in order, each reading what the parts before it, already trained, compute.
    fn train_parts(
        &self,
        unit: &QuantUnit,
        (rows, prefix): (&Rows, Prefix),
        phase: &Phase,
        stream: Stream,
    ) -> Result<()> {
        let (recipe, control) = (self.recipe, self.control);
        let parts = match recipe.granularity {
            Granularity::Layer => Part::layers(unit, recipe.conv_target),
            Granularity::Block => vec![Part::of_unit(unit, recipe)],
            Granularity::None => Vec::new(),
        };
        for part in parts {
            // A stream of its own for each: the layers of a unit must not draw the same mini-batches.
            let stream = match recipe.granularity {
                Granularity::Layer => stream.named(&part.unit.fp.name),
                Granularity::Block | Granularity::None => stream,
            };
            let Rows { x_fp, x_q, y_fp, .. } = &part.rows(unit, rows, prefix, control)?;
            let problem = Problem { unit: &part.unit, x_fp, x_q, y_fp, loss_weight: None, prediction: None };
            train::train(&problem, phase, stream, control, self.loops)?;
        }
        Ok(())
    }

    /// Trains activation scales alone, on full-precision inputs and targets (BRECQ's second phase).
    fn train_acts(&self, model: &mut QuantModel) -> Result<()> {
        let control = self.control;
        let phase = Phase::acts(self.recipe);
        let mut x_fp = Activations::new(self.calib.images, self.calib.memory);
        for index in 0..model.units.len() {
            let unit = &model.units[index].fp;
            let _span = info_span!("unit", name = unit.name).entered();
            let y_fp = info_span!("full-precision outputs").in_scope(|| full_precision(unit, &x_fp, control))?;
            let rows = Rows { x_q: x_fp.clone(), x_fp, y_fp: y_fp.clone(), logits: None };
            self.resumable(phase.name, index, None).or_train(model, control, |model, control, loops| {
                let unit = &model.units[index];
                control.unit(index, model.units.len(), &unit.fp.name);
                if !self.is_trained(unit) {
                    return Ok(());
                }
                // A stream of its own: the phases of a unit must not draw the same mini-batches.
                let stream = self.stream.named(&unit.fp.name).named(phase.name);
                self.under(control, loops).train_parts(unit, (&rows, Prefix::FullPrecision), &phase, stream)
            })?;
            x_fp = y_fp;
        }
        Ok(())
    }

    /// Whether the recipe optimises this unit; a stem may be left rounded to nearest.
    fn is_trained(&self, unit: &QuantUnit) -> bool {
        unit.fp.role != Role::Stem || self.recipe.reconstruct_stem
    }
}
