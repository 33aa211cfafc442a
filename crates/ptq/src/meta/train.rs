//! Trains the transform network for one unit (MetaAug, algorithm 1; published `train_meta.py`).

use super::config::{ActStart, Meta};
use super::draw::Draw;
use super::gradient::{Engine, MetaUnit, Part};
use super::nets::{NormStatistics, TransformNet};
use super::sample::{Mix, Sample};
use super::terms::{self, Terms};
use super::theta::numbers;
use crate::error::{Error, Result};
use crate::graph::forward::through;
use crate::ops::adam::{self, AdamState, Step};
use crate::ops::device::Repeating;
use crate::ops::fake_quant::Mask;
use crate::ops::mix::mix_rows;
use crate::ops::squares::sums_of_squares;
use crate::ops::tape::{self, Recording};
use crate::quant::act::ActQuantizer;
use crate::quant::model::{Masks, QuantModel};
use crate::recipe::Recipe;
use crate::recon::activations::Activations;
use crate::recon::event::{Control, Event, Point, Term, TermPoint};
use crate::recon::midway::{Loops, Steps, Tensors, Training, value};
use crate::recon::propagate::in_batches;
use crate::recon::schedule::Plateau;
use crate::recon::start::search_ranges;
use crate::recon::trace::UnitTrace;
use crate::recon::train::{KeyedMasks, Phase, add_moments, set_moments};
use crate::rng::{Purpose, Stream};
use candle_core::{Device, Tensor};
use tracing::{info_span, trace_span};

/// What the trace and the events of this phase are called.
pub const PHASE: &str = "meta";

/// A transform network and how it is trained.
pub struct Trainable<'a> {
    pub net: &'a TransformNet,
    pub meta: &'a Meta,
    pub terms: &'a Terms,
}

/// The calibration sample as the meta-loss needs it; the same for all units.
pub struct Originals<'a> {
    pub images: &'a Tensor,
    pub labels: &'a [u32],
    /// In full precision.
    pub logits: Tensor,
    /// The activation quantizers of every unit from which its virtual updates start, where they are not those of the model.
    acts: Option<Vec<Vec<ActQuantizer>>>,
}

impl<'a> Originals<'a> {
    pub fn new(model: &QuantModel, images: &'a Tensor, labels: &'a [u32], control: &Control) -> Result<Self> {
        let logits = in_batches(images, control, |x| through(model.units.iter().map(|unit| &unit.fp), x))?;
        Ok(Self { images, labels, logits, acts: None })
    }

    /// Searches the activation scales of `model`, of which nothing is trained yet, if `meta` starts from them
    /// ([`ActStart::Nearest`]).
    pub fn start_acts(&mut self, meta: &Meta, model: &QuantModel, recipe: &Recipe) -> Result<()> {
        if meta.act_start == ActStart::Nearest && recipe.quantize_acts && recipe.act_search_prefix.waits() {
            let mut nearest = model.clone();
            search_ranges(&mut nearest, self.images, recipe)?;
            self.acts = Some(nearest.units.into_iter().map(|unit| unit.acts).collect());
        }
        Ok(())
    }
}

/// Trains the network for unit `index` of `model`, whose quantized prefix gives `x_q` for the original images.
///
/// Weights carry over from unit to unit; the optimiser starts anew, as published.
pub fn train(
    transform: &Trainable,
    model: &QuantModel,
    index: usize,
    (originals, x_q): (&Originals, &Activations),
    recipe: &Recipe,
    (stream, control, loops): (Stream, &Control, &Loops),
) -> Result<()> {
    let Trainable { net, meta, terms } = *transform;
    if !net.is_trainable() || meta.iterations == 0 || terms::active(terms).is_empty() {
        return Ok(());
    }
    let _span = info_span!("train", phase = PHASE).entered();
    let phase = Phase { iterations: meta.iterations, ..Phase::weights(recipe) };
    let mut model = model.clone();
    if let Some(acts) = &originals.acts {
        model.units[index].acts.clone_from(&acts[index]);
    }
    let unit = MetaUnit::new((&model, index), &phase, recipe.unit_input, (meta, terms))?;
    let name = &model.units[index].fp.name;
    let told = terms::active(terms).into_iter().map(|(term, weight)| Term { name: term.name.to_string(), weight });
    loops.phase((name, PHASE), told.collect(), control, |steps| {
        run(net, (&unit, name), (originals, x_q), stream, (control, steps))
    })
}

/// The steps for one unit.
fn run(
    net: &TransformNet,
    (unit, name): (&MetaUnit, &str),
    (originals, x_q): (&Originals, &Activations),
    stream: Stream,
    (control, steps): (&Control, &mut Steps),
) -> Result<()> {
    let meta = unit.meta;
    let mut optimiser = Optimiser::new(net, meta)?;
    for t in steps.resume(&mut optimiser)? + 1..=meta.iterations {
        control.check()?;
        let batch = MiniBatch::draw(unit, (originals, x_q), stream, t)?;
        let (_recording, _repeating) = (Recording::begin(), Repeating::on(batch.x.device()));
        let t_x = trace_span!("transform").in_scope(|| net.forward(&batch.x, NormStatistics::Batch))?;
        let parts = trace_span!("meta-loss and gradients").in_scope(|| batch.parts(unit, &t_x))?;
        let is_due = UnitTrace::is_due(t, meta.iterations);
        let update = trace_span!("update").in_scope(|| optimiser.prepare(&t_x, &parts, is_due))?;
        let total: f64 = parts.iter().zip(&update.losses).map(|(part, loss)| part.weight * loss).sum();
        let diverged = parts.iter().zip(&update.losses).find(|(_, loss)| !loss.is_finite());
        if is_due || diverged.is_some() {
            let norms = match is_due {
                true => update.norms.clone(),
                false => optimiser.prepare(&t_x, &parts, true)?.norms,
            };
            let terms = update.losses.iter().zip(norms);
            let terms = terms.map(|(&loss, gradient_norm)| TermPoint { loss, gradient_norm }).collect();
            steps.tell(Point { terms, ..Point::of_loss(t, total) });
        }
        if let Some((part, &value)) = diverged {
            let unit = format!("{name}, meta-loss term {}", part.term.name);
            return Err(Error::Diverged { unit, iteration: t, value });
        }
        trace_span!("update").in_scope(|| optimiser.step(update, total))?;
        let (phase, iterations) = (PHASE.to_string(), meta.iterations);
        (control.observe)(Event::Step { phase, iteration: t, iterations, loss: total });
        steps.made(t, &optimiser)?;
    }
    steps.finish(meta.iterations, &optimiser)
}

/// What one step looks at.
struct MiniBatch {
    /// Step of the unit (from 1).
    t: usize,
    x: Tensor,
    outer_input: Tensor,
    outer_logits: Tensor,
    outer_labels: Vec<u32>,
    mixes: [Mix; 2],
    /// Of the outer pass, and of each virtual update.
    masks: Vec<KeyedMasks>,
}

impl MiniBatch {
    fn draw(unit: &MetaUnit, (originals, x_q): (&Originals, &Activations), stream: Stream, t: usize) -> Result<Self> {
        let meta = unit.meta;
        let Draw { rows, outer_rows, mixes } = Draw::new(originals.images.dim(0)?, meta, stream, t);
        let take = |cached: &Tensor, rows: &[u32]| mix_rows(cached, cached, rows, &Mask::All);
        let masks = stream.purpose(Purpose::MetaDrop).at(t as u64);
        let keyed = |pass: usize| KeyedMasks { stream: masks.at(pass as u64), drop: unit.phase.drop_inside };
        Ok(Self {
            t,
            x: take(originals.images, &rows)?,
            outer_input: x_q.rows(&outer_rows)?,
            outer_logits: take(&originals.logits, &outer_rows)?,
            outer_labels: outer_rows.iter().map(|&row| originals.labels[row as usize]).collect(),
            mixes,
            masks: (0..=meta.unroll).map(keyed).collect(),
        })
    }

    /// The parts of the meta-loss for these images, transformed to `t_x`.
    fn parts(&self, unit: &MetaUnit, t_x: &Tensor) -> Result<Vec<Part>> {
        let inner: Vec<&dyn Masks> = self.masks[1..].iter().map(|masks| masks as &dyn Masks).collect();
        let sample = Sample {
            t: self.t,
            x: &self.x,
            outer_input: &self.outer_input,
            outer_logits: &self.outer_logits,
            outer_labels: &self.outer_labels,
            mixes: &self.mixes,
            inner_masks: &inner,
            outer_masks: &self.masks[0],
            target: None,
        };
        unit.parts(&sample, t_x, Engine::Fused)
    }
}

/// Adam on the network with clipped gradients and a learning rate that falls when the loss does not.
struct Optimiser<'a> {
    net: &'a TransformNet,
    states: Vec<AdamState>,
    t: usize,
    clip_norm: f64,
    plateau: Plateau,
}

/// What a step is made of.
struct Update {
    /// Of each term, unweighted.
    losses: Vec<f64>,
    /// Norm of the gradient of each unweighted term with respect to the network's parameters, if they were asked for.
    norms: Vec<f64>,
    /// Of the whole loss to each parameter.
    gradients: Vec<Option<Tensor>>,
    /// Of all of these.
    norm: f64,
}

impl<'a> Optimiser<'a> {
    fn new(net: &'a TransformNet, meta: &Meta) -> Result<Self> {
        Ok(Self {
            net,
            states: net.parameters.vars().map(AdamState::new).collect::<candle_core::Result<_>>()?,
            t: 0,
            clip_norm: meta.clip_norm,
            plateau: Plateau::new(meta.lr, meta.plateau_factor, meta.plateau_patience, 0.0),
        })
    }

    /// Gradients of the network's parameters for `of_t_x`, the gradient of its output.
    fn gradients(&self, t_x: &Tensor, of_t_x: Option<&Tensor>) -> Result<Vec<Option<Tensor>>> {
        let Some(of_t_x) = of_t_x else { return Ok(self.states.iter().map(|_| None).collect()) };
        let mut store = tape::gradients_from(t_x, of_t_x)?;
        Ok(self.states.iter().map(|state| store.remove(state.var())).collect())
    }

    /// Losses, gradients and their norms for the output `t_x` of the network, read from its device in one copy.
    fn prepare(&self, t_x: &Tensor, parts: &[Part], with_norms: bool) -> Result<Update> {
        let mut of_t_x: Option<Tensor> = None;
        for part in parts {
            if let Some(gradient) = &part.gradient {
                let weighted = (gradient * part.weight)?;
                of_t_x = Some(match of_t_x {
                    None => weighted,
                    Some(sum) => (sum + weighted)?,
                });
            }
        }
        let gradients = self.gradients(t_x, of_t_x.as_ref())?;
        let mut read: Vec<Tensor> = parts.iter().map(|part| part.loss.clone()).collect();
        let mut counts = vec![push_squares(&gradients, &mut read)?];
        for part in parts.iter().filter(|_| with_norms) {
            counts.push(push_squares(&self.gradients(t_x, part.gradient.as_ref())?, &mut read)?);
        }
        let mut losses = numbers(&read)?;
        let squares = losses.split_off(parts.len());
        let mut rest = squares.as_slice();
        let mut norms = counts.into_iter().map(|count| {
            let (own, others) = rest.split_at(count);
            rest = others;
            own.iter().sum::<f64>().sqrt()
        });
        let norm = norms.next().unwrap_or(0.0);
        Ok(Update { losses, norms: norms.collect(), gradients, norm })
    }

    fn step(&mut self, update: Update, total: f64) -> Result<()> {
        let Update { gradients, norm, .. } = update;
        if gradients.iter().any(Option::is_some) {
            self.t += 1;
            // PyTorch's `clip_grad_norm_`.
            let factor = (self.clip_norm / (norm + 1e-6)).min(1.0);
            let steps = self.states.iter().zip(&gradients).filter_map(|(state, gradient)| {
                gradient.as_ref().map(|gradient| Step { state, gradient, lr: self.plateau.lr })
            });
            adam::step(&steps.collect::<Vec<_>>(), self.t, factor)?;
        }
        self.plateau.observe(total);
        Ok(())
    }
}

impl Training for Optimiser<'_> {
    fn state(&self, is_over: bool) -> Result<Tensors> {
        let named = self.net.parameters.tensors()?.into_iter();
        let mut state = named
            .map(|(name, value)| Ok((format!("{NET}{name}"), value.to_device(&Device::Cpu)?)))
            .collect::<Result<Tensors>>()?;
        for (index, adam) in self.states.iter().enumerate() {
            add_moments(&mut state, index, adam, is_over)?;
        }
        let [lr, best, bad] = self.plateau.state();
        state.insert(SCHEDULE.to_string(), Tensor::new(&[self.t as f64, lr, best, bad], &Device::Cpu)?);
        Ok(state)
    }

    fn set_state(&mut self, state: &Tensors) -> Result<()> {
        let of_net = |(name, value): (&String, &Tensor)| Some((name.strip_prefix(NET)?.to_string(), value.clone()));
        self.net.parameters.load(&state.iter().filter_map(of_net).collect())?;
        for (index, adam) in self.states.iter_mut().enumerate() {
            set_moments(state, index, adam)?;
        }
        let schedule = value(state, SCHEDULE)?.to_vec1::<f64>()?;
        if let [t, lr, best, bad] = schedule[..] {
            self.t = t as usize;
            self.plateau.set_state([lr, best, bad]);
        }
        Ok(())
    }
}

/// Begins the names of the network's parameters in a state.
const NET: &str = "net.";
/// Adam's steps, and what the learning rate has come to.
const SCHEDULE: &str = "schedule";

/// Adds the sums of squares of the gradients to `numbers`; how many these are.
fn push_squares(gradients: &[Option<Tensor>], numbers: &mut Vec<Tensor>) -> Result<usize> {
    let gradients: Vec<Tensor> = gradients.iter().flatten().cloned().collect();
    if !gradients.is_empty() {
        numbers.push(sums_of_squares(&gradients)?);
    }
    Ok(gradients.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::layout::TORCHVISION;
    use crate::graph::fold_bn::fold_bn;
    use crate::ops::check::noise;
    use crate::recipe::{Bits, Setting};
    use crate::recon::start::prepare;
    use crate::{arch, methods};
    use std::sync::atomic::AtomicBool;

    static RUNNING: AtomicBool = AtomicBool::new(false);
    static CONTROL: Control = Control { observe: &|_| (), cancelled: &RUNNING };

    #[test]
    fn virtual_updates_start_from_the_scales_of_a_network_rounded_to_nearest() {
        let arch = arch::find("resnet20").unwrap();
        let recipe = (methods::find("metaaug").unwrap().recipe)(arch);
        let tensors = arch::made_up::tensors(arch, &TORCHVISION).unwrap();
        let network = arch::load(arch, tensors, "made-up", &Device::Cpu).unwrap();
        let network = fold_bn(&network, recipe.batch_norm).unwrap();
        let (images, labels) = (&noise((16, 1, 28, 28), 1, candle_core::DType::F32), &[0; 16]);
        let model = prepare(&network, images, (Bits { w: 2, a: 2 }, Setting::Qdrop), &recipe).unwrap();
        let started = |meta: &Meta, recipe: &Recipe| {
            let mut originals = Originals::new(&model, images, labels, &CONTROL).unwrap();
            originals.start_acts(meta, &model, recipe).unwrap();
            let ranges = |acts: Vec<ActQuantizer>| acts.iter().map(|act| act.range().unwrap()).collect::<Vec<_>>();
            originals.acts.map(|acts| acts.into_iter().map(ranges).collect::<Vec<_>>())
        };
        let published = Meta::published(arch);
        let mut nearest = model.clone();
        search_ranges(&mut nearest, images, &recipe).unwrap();
        let all: Vec<_> = started(&published, &recipe).unwrap().into_iter().flatten().collect();
        let expected = nearest.act_ranges().unwrap();
        // Two per block, whose shortcut shares the first, and the classifier's.
        assert!(all.len() == 19 && all.iter().all(Option::is_some));
        assert_eq!(all.into_iter().map(|range| range.into_iter().collect()).collect::<Vec<Vec<_>>>(), expected);
        // The model's own are for reconstruction to search.
        assert!(model.act_ranges().unwrap().iter().all(Vec::is_empty));
        let before = Meta { act_start: ActStart::Reconstruction, ..published.clone() };
        assert!(started(&before, &recipe).is_none());
        // Ranges that are searched before anything is trained are there already.
        let qdrop = (methods::find("qdrop").unwrap().recipe)(arch);
        assert!(started(&published, &qdrop).is_none());
    }
}
