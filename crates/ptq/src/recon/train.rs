//! Optimises the quantizers of one unit.

use super::activations::Activations;
use super::batches;
use super::event::{Control, Event, Point};
use super::midway::{Loops, MOMENT, Steps, Tensors, Training, value};
use super::prediction::Prediction;
use super::schedule::{BetaSchedule, LearningRate};
use super::trace::UnitTrace;
use crate::error::{Error, Result};
use crate::ops::adam::{self, AdamState};
use crate::ops::ahead::{Ahead, ahead};
use crate::ops::device::Repeating;
use crate::ops::fake_quant::Mask;
use crate::ops::recon_error::recon_error;
use crate::ops::rounding::{Regulariser, SoftWeight};
use crate::ops::tape::{self, Recording, plain};
use crate::quant::model::{Acts, Masks, Mode, QuantUnit, Weights};
use crate::recipe::{ConvTarget, RangeSearch, Recipe, Sampling};
use crate::rng::{Purpose, Stream, threshold};
use candle_core::{DType, Device, Tensor, Var};
use tracing::{info_span, trace_span};

/// Steps on a GPU between two readings of the loss, at most.
const READ_EVERY: usize = 50;

/// A unit and the cached activations around it, all `(N, ...)`.
pub struct Problem<'a> {
    pub unit: &'a QuantUnit,
    /// Input from the full-precision prefix.
    pub x_fp: &'a Activations,
    /// Input from the quantized prefix.
    pub x_q: &'a Activations,
    /// Full-precision output for `x_fp`: the target.
    pub y_fp: &'a Activations,
    /// Weight of each element of the error.
    pub loss_weight: Option<&'a Activations>,
    /// What judges the unit's output, and the logits `(N, K)` of the full-precision network.
    pub prediction: Option<(Prediction<'a>, &'a Activations)>,
}

/// What is trained, on what, for how long.
#[derive(Clone, Debug)]
pub struct Phase {
    pub name: &'static str,
    pub iterations: usize,
    /// Images of a mini-batch.
    pub batch: usize,
    pub sampling: Sampling,
    /// `p` of [`recon_error`].
    pub exponent: f64,
    pub conv_target: ConvTarget,
    /// Learning rates; `None`: fixed.
    pub rounding: Option<LearningRate>,
    pub weight_scale: Option<LearningRate>,
    pub act_scale: Option<LearningRate>,
    pub quantize_acts: bool,
    /// Probability that an element of an activation inside the unit is left in full precision (QDrop).
    pub drop_inside: f64,
    /// Probability that an element of the unit's input is taken from the full-precision prefix.
    pub drop_input: f64,
    /// Weight of the rounding's regulariser.
    pub round_weight: f64,
    pub beta: BetaSchedule,
}

impl Phase {
    /// Trains the rounding, with what the recipe trains beside it.
    pub fn weights(recipe: &Recipe) -> Self {
        let cosine = |lr: f64| (lr > 0.0).then_some(LearningRate::Cosine(lr));
        Self {
            name: "weights",
            iterations: recipe.iterations,
            batch: recipe.batch,
            sampling: recipe.sampling,
            exponent: recipe.loss_exponent,
            conv_target: recipe.conv_target,
            rounding: (recipe.alpha_lr > 0.0).then_some(LearningRate::Constant(recipe.alpha_lr)),
            weight_scale: cosine(recipe.weight_scale_lr),
            act_scale: cosine(recipe.act_scale_lr).filter(|_| recipe.quantize_acts),
            quantize_acts: recipe.quantize_acts,
            drop_inside: recipe.drop_inside,
            drop_input: recipe.drop_input,
            round_weight: recipe.round_weight,
            beta: BetaSchedule {
                warmup: recipe.round_warmup,
                start: recipe.round_beta_start,
                end: recipe.round_beta_end,
            },
        }
    }

    /// Trains activation scales alone, weights hard-rounded, nothing dropped.
    pub fn acts(recipe: &Recipe) -> Self {
        Self {
            name: "activations",
            iterations: recipe.act_phase_iterations(),
            exponent: recipe.act_phase_exponent,
            rounding: None,
            weight_scale: None,
            act_scale: Some(LearningRate::Cosine(recipe.act_phase_lr)),
            quantize_acts: true,
            drop_inside: 0.0,
            drop_input: 0.0,
            ..Self::weights(recipe)
        }
    }
}

impl Phase {
    /// How a unit computes while this phase trains it; `soft` as [`QuantUnit::soft_weights`] gives it.
    pub fn mode<'a>(&self, soft: &'a [Option<SoftWeight>], masks: &'a dyn Masks) -> Mode<'a> {
        let weights = if self.rounding.is_some() { Weights::Soft(soft) } else { Weights::Hard };
        Mode { weights, acts: self.acts_of(masks) }
    }

    /// What becomes of activations while this phase trains a unit.
    pub fn acts_of<'a>(&self, masks: &'a dyn Masks) -> Acts<'a> {
        match (self.quantize_acts, self.drop_inside > 0.0) {
            (false, _) => Acts::FullPrecision,
            (true, false) => Acts::Quantized,
            (true, true) => Acts::Dropped(masks),
        }
    }

    /// The regulariser of the rounding at step `t` (from 1); none while it warms up.
    pub fn regulariser(&self, t: usize) -> Option<Regulariser> {
        self.beta.at(t, self.iterations).map(|beta| Regulariser { beta, weight: self.round_weight })
    }

    /// What the phase trains in `unit`: weight scales, what roundings learn, activation scales.
    pub fn parameters<'a>(&self, unit: &'a QuantUnit) -> Vec<(&'a Var, LearningRate)> {
        let weights = || unit.weights.iter().flatten();
        let scales = weights().zip(self.weight_scale.into_iter().cycle()).map(|(weight, lr)| (&weight.scale, lr));
        let learned = weights().flat_map(|weight| &weight.learned).zip(self.rounding.into_iter().cycle());
        let acts = unit.used_acts().zip(self.act_scale.into_iter().cycle()).map(|(act, lr)| (&act.scale, lr));
        scales.chain(learned).chain(acts).collect()
    }

    /// The losses of `unit` at step `t` (from 1).
    ///
    /// With a prediction difference, the unit computes both of its inputs in one pass, dropping in both.
    pub fn losses(&self, unit: &QuantUnit, t: usize, batch: &Batch, masks: &dyn Masks) -> Result<Losses> {
        let soft = if self.rounding.is_some() { unit.soft_weights(self.regulariser(t))? } else { Vec::new() };
        let mode = self.mode(&soft, masks);
        let (y_q, prediction) = match &batch.judged {
            None => (unit.forward(&batch.x, mode)?, None),
            Some(judged) => {
                let y = unit.forward(&plain::stacked_rows(&batch.x, &judged.x_q)?, mode)?;
                let n = batch.x.dim(0)?;
                let difference = judged.by.difference(&plain::narrow(&y, 0, n, n)?, &judged.logits)?;
                (plain::narrow(&y, 0, 0, n)?, Some(difference))
            }
        };
        let error = recon_error(&y_q, &batch.y_fp, batch.loss_weight.as_ref(), self.exponent)?;
        let mut total = error.clone();
        for penalty in soft.iter().flatten().filter_map(|soft| soft.penalty.as_ref()) {
            total = plain::add(&total, penalty)?;
        }
        if let Some(prediction) = &prediction {
            total = plain::add(&total, prediction)?;
        }
        Ok(Losses { error, prediction, total })
    }

    /// Searches the ranges of the unit's activations for input `x`, while it computes as in this phase.
    pub fn search_acts(&self, unit: &mut QuantUnit, x: &Tensor, search: RangeSearch, stream: Stream) -> Result<()> {
        let soft = unit.soft_weights(None)?;
        // Training counts its steps from 1.
        let masks = KeyedMasks { stream: stream.purpose(Purpose::DropInside).at(0), drop: self.drop_inside };
        unit.search_acts(x, search, self.mode(&soft, &masks))?;
        Ok(())
    }
}

/// One mini-batch.
pub struct Batch<'a> {
    /// Input of the unit.
    pub x: Tensor,
    pub y_fp: Tensor,
    pub loss_weight: Option<Tensor>,
    pub judged: Option<Judged<'a>>,
}

/// What the prediction difference of a mini-batch is computed from.
pub struct Judged<'a> {
    pub by: Prediction<'a>,
    /// Input of the unit from the quantized prefix alone.
    pub x_q: Tensor,
    /// Of the full-precision network.
    pub logits: Tensor,
}

/// What a step minimises: `total`, and two of its parts.
pub struct Losses {
    /// Reconstruction error.
    pub error: Tensor,
    /// Weighted prediction difference.
    pub prediction: Option<Tensor>,
    /// Both, and the regulariser of the rounding.
    pub total: Tensor,
}

impl Losses {
    /// Their values, as soon as they are computed.
    pub fn read(&self) -> Result<StepLoss> {
        let parts: Vec<&Tensor> = [&self.error, &self.total].into_iter().chain(&self.prediction).collect();
        // One copy from the device instead of one for each part.
        let values = Tensor::stack(&parts, 0)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let (error, total, prediction) = (values[0], values[1], values.get(2).copied());
        Ok(StepLoss { error, prediction, regulariser: total - error - prediction.unwrap_or(0.0) })
    }
}

/// The parts of a loss.
#[derive(Clone, Copy, Debug)]
pub struct StepLoss {
    pub error: f64,
    pub prediction: Option<f64>,
    pub regulariser: f64,
}

impl StepLoss {
    pub fn total(&self) -> f64 {
        self.error + self.prediction.unwrap_or(0.0) + self.regulariser
    }
}

/// The trained parameters of a unit with their optimiser states.
pub struct Trainer<'a> {
    unit: &'a QuantUnit,
    phase: &'a Phase,
    parameters: Vec<(AdamState, LearningRate)>,
}

impl<'a> Trainer<'a> {
    /// Before the first step. Errors: no memory for the optimiser's state.
    pub fn new(unit: &'a QuantUnit, phase: &'a Phase) -> Result<Self> {
        let parameters = phase.parameters(unit).into_iter().map(|(var, lr)| Ok((AdamState::new(var)?, lr)));
        Ok(Self { unit, phase, parameters: parameters.collect::<Result<_>>()? })
    }

    /// Whether there is nothing to train.
    pub fn is_idle(&self) -> bool {
        self.parameters.is_empty()
    }

    /// Step `t` (from 1): forward, backward, Adam. What it gives are losses before the step, which a GPU may still be computing.
    pub fn step(&self, t: usize, batch: &Batch, masks: &dyn Masks) -> Result<Losses> {
        let phase = self.phase;
        let (_recording, _repeating) = (Recording::begin(), Repeating::on(batch.x.device()));
        let losses = trace_span!("forward").in_scope(|| phase.losses(self.unit, t, batch, masks))?;
        let gradients = trace_span!("backward").in_scope(|| tape::gradients(&losses.total))?;
        let span = trace_span!("update").entered();
        let steps = self.parameters.iter().filter_map(|(state, lr)| {
            let lr = lr.at(t, phase.iterations);
            gradients.get(state.var()).map(|gradient| adam::Step { state, gradient, lr })
        });
        adam::step(&steps.collect::<Vec<_>>(), t, 1.0)?;
        drop(span);
        Ok(losses)
    }
}

impl Training for Trainer<'_> {
    fn state(&self, is_over: bool) -> Result<Tensors> {
        let mut state = Tensors::new();
        for (index, (adam, _)) in self.parameters.iter().enumerate() {
            state.insert(format!("value.{index}"), adam.var().as_detached_tensor().to_device(&Device::Cpu)?.copy()?);
            add_moments(&mut state, index, adam, is_over)?;
        }
        Ok(state)
    }

    fn set_state(&mut self, state: &Tensors) -> Result<()> {
        for (index, (adam, _)) in self.parameters.iter_mut().enumerate() {
            let there = value(state, &format!("value.{index}"))?.to_device(adam.var().device())?;
            adam.var().set(&there)?;
            set_moments(state, index, adam)?;
        }
        Ok(())
    }
}

/// Adds what `adam` remembers of parameter `index` to `state`, unless nobody needs it any more.
pub(crate) fn add_moments(state: &mut Tensors, index: usize, adam: &AdamState, is_over: bool) -> Result<()> {
    if !is_over {
        let names = [1, 2].map(|order| format!("{MOMENT}{index}.{order}"));
        state.extend(names.into_iter().zip(adam.moments()?));
    }
    Ok(())
}

/// Sets what [`add_moments`] added, if it did.
pub(crate) fn set_moments(state: &Tensors, index: usize, adam: &mut AdamState) -> Result<()> {
    let moment = |order: usize| state.get(&format!("{MOMENT}{index}.{order}"));
    if let (Some(m), Some(v)) = (moment(1), moment(2)) {
        adam.set_moments([m, v])?;
    }
    Ok(())
}

/// Runs `phase` on `problem`, as one of `loops`; does nothing, and tells nothing, where it leaves the unit nothing to train.
pub fn train(problem: &Problem, phase: &Phase, stream: Stream, control: &Control, loops: &Loops) -> Result<()> {
    let trainer = Trainer::new(problem.unit, phase)?;
    if trainer.is_idle() || phase.iterations == 0 {
        return Ok(());
    }
    let _span = info_span!("train", phase = phase.name).entered();
    let names = (&*problem.unit.fp.name, phase.name);
    loops.phase(names, Vec::new(), control, |steps| run(trainer, problem, stream, control, steps))
}

/// The steps of a phase.
fn run(mut trainer: Trainer, problem: &Problem, stream: Stream, control: &Control, steps: &mut Steps) -> Result<()> {
    let phase = trainer.phase;
    let (images, draws) = (problem.x_fp.images()?, stream.purpose(Purpose::Batch));
    let draw = |t: usize| {
        let drops = stream.purpose(Purpose::DropInput).at(t as u64);
        let rows = || batches::rows(phase.sampling, images, phase.batch, draws, t);
        trace_span!("mini-batch").in_scope(|| problem.batch(&rows(), phase.drop_input, drops))
    };
    let mut early = problem.reads_ahead().map(|device| Early { device, draw: &draw, next: None });
    for t in steps.resume(&mut trainer)? + 1..=phase.iterations {
        control.check()?;
        let batch = match &mut early {
            Some(early) => early.take(t, phase.iterations)?,
            None => draw(t)?,
        };
        let masks = KeyedMasks { stream: stream.purpose(Purpose::DropInside).at(t as u64), drop: phase.drop_inside };
        let losses = trainer.step(t, &batch, &masks)?;
        // Whoever reads a loss waits for a GPU, which then waits for the next step. What is not finite stays so.
        let is_read =
            batch.x.device().is_cpu() || t.is_multiple_of(READ_EVERY) || UnitTrace::is_due(t, phase.iterations);
        if is_read {
            tell(&losses.read()?, t, (problem, phase), control, steps)?;
        }
        steps.made(t, &trainer)?;
    }
    steps.finish(phase.iterations, &trainer)
}

/// Tells of the losses of step `t`. Errors: they are not finite.
fn tell(
    loss: &StepLoss,
    t: usize,
    (problem, phase): (&Problem, &Phase),
    control: &Control,
    steps: &mut Steps,
) -> Result<()> {
    let total = loss.total();
    if UnitTrace::is_due(t, phase.iterations) || !total.is_finite() {
        let regulariser = Some(loss.regulariser);
        steps.tell(Point { regulariser, prediction: loss.prediction, ..Point::of_loss(t, loss.error) });
    }
    if !total.is_finite() {
        return Err(Error::Diverged { unit: problem.unit.fp.name.clone(), iteration: t, value: total });
    }
    let (name, iterations) = (phase.name.to_string(), phase.iterations);
    (control.observe)(Event::Step { phase: name, iteration: t, iterations, loss: total });
    Ok(())
}

/// Mini-batches that are drawn a step before they are due, so that a GPU fetches them from the host meanwhile.
struct Early<'a, 'p> {
    device: &'a Device,
    draw: &'a dyn Fn(usize) -> Result<Batch<'p>>,
    next: Option<Ahead<Result<Batch<'p>>>>,
}

impl<'p> Early<'_, 'p> {
    /// That of step `t`; begins to fetch the next, unless this is the `last`.
    fn take(&mut self, t: usize, last: usize) -> Result<Batch<'p>> {
        let due = match self.next.take() {
            Some(next) => next.arrived(),
            None => (self.draw)(t),
        };
        if t < last {
            self.next = Some(ahead(self.device, || (self.draw)(t + 1))?);
        }
        due
    }
}

impl Problem<'_> {
    /// The device that can fetch mini-batches ahead: where some come from page-locked memory, and none from a file, whose rows pass
    /// through more hands.
    fn reads_ahead(&self) -> Option<&Device> {
        let always = [self.x_fp, self.x_q, self.y_fp].into_iter();
        let mut all = always.chain(self.loss_weight).chain(self.prediction.as_ref().map(|(_, logits)| *logits));
        let device = all.clone().find_map(Activations::pinned_for)?;
        (!all.any(Activations::is_spilled)).then_some(device)
    }

    /// Mini-batch of the images `rows`, each input element taken from the full-precision prefix with probability `drop`.
    fn batch(&self, rows: &[u32], drop: f64, stream: Stream) -> Result<Batch<'_>> {
        let take = |activations: &Activations| activations.rows(rows);
        let judged = self
            .prediction
            .map(|(by, logits)| -> Result<Judged> { Ok(Judged { by, x_q: take(self.x_q)?, logits: take(logits)? }) });
        Ok(Batch {
            x: self.x_q.mixed(self.x_fp, rows, &keyed(stream, drop))?,
            y_fp: take(self.y_fp)?,
            loss_weight: self.loss_weight.map(take).transpose()?,
            judged: judged.transpose()?,
        })
    }
}

/// Masks drawn afresh for every activation of one step.
pub struct KeyedMasks {
    pub stream: Stream,
    /// Probability that an element is left in full precision.
    pub drop: f64,
}

impl Masks for KeyedMasks {
    fn mask(&self, node: usize, slot: Option<usize>) -> Mask {
        keyed(self.stream.at(node as u64).at(slot.map_or(0, |slot| slot as u64 + 1)), self.drop)
    }
}

/// Selects each element with probability `1 - drop`.
fn keyed(stream: Stream, drop: f64) -> Mask {
    match drop > 0.0 {
        true => Mask::Keyed { key: stream.element_key(), threshold: threshold(1.0 - drop) },
        false => Mask::All,
    }
}
