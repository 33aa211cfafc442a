//! The gradient of the meta-loss with respect to the transformed images, term by term.
//!
//! Terms on images and features are differentiated directly. Terms on original images depend on `T` only through the
//! virtual update `theta' = theta - step(g(theta, x'))`. With `K` updates, `theta_0 = theta` and `theta_K = theta'`, the
//! chain rule backwards from `a_K = dL/dtheta'` is, for `k = K - 1 ... 0`:
//!
//! ```text
//! u_k = (dtheta_{k+1} / dg_k)^T a_{k+1}                          elementwise, [`Rule::adjoint`]
//! dL/dx_in += d<u_k, g(theta_k, x_in)> / dx_in                   a directional derivative, [`super::dual`]
//! a_k = a_{k+1} + d<u_k, g(theta_k, x_in)> / dtheta_k
//! ```
//!
//! and `x_in`, the unit's input, leads back to `x'` through the quantized prefix, straight through its roundings.

use super::config::{Derivative, Inner, Meta};
use super::dual::{DualPass, rounding_penalty, squared_error};
use super::sample::Sample;
use super::terms::{self, Features, Images, Loss, Outer, Term, Terms};
use super::theta::{collect, direction, flat, numbers, unit_dtype, with_values};
use super::virtual_update::Rule;
use crate::error::{Error, Result};
use crate::graph::forward::{FullPrecision, forward, read, through};
use crate::graph::{Op, Source, Unit};
use crate::ops::dual::{Dual, Roundings};
use crate::ops::tape::{self, Recording, plain, scalar};
use crate::ops::virtual_step::{Moments, normalised};
use crate::quant::model::{Acts, Masks, Mode, QuantModel, QuantUnit, Weights};
use crate::recipe::Prefix;
use crate::recon::part;
use crate::recon::train::{Batch, Phase};
use candle_core::{Tensor, Var};

/// How far a finite difference moves what a rounding learns at most, and a scale relative to its value.
const DIFFERENCE: f64 = 1e-2;

/// How quantized passes are computed.
#[derive(Clone, Copy)]
pub enum Engine<'a> {
    /// By the fused operations of reconstruction, in `f32`.
    Fused,
    /// By compositions of differentiable operations, in `f32` or `f64`; for checks.
    Plain(&'a Roundings),
}

/// The unit for which `T` is trained, in its network.
pub struct MetaUnit<'a> {
    model: &'a QuantModel,
    index: usize,
    /// The phase that will reconstruct the unit, with as many iterations as `T` is trained for.
    pub(super) phase: &'a Phase,
    /// What the unit reads.
    prefix: Prefix,
    pub(super) meta: &'a Meta,
    terms: &'a Terms,
    /// The units before it as what it reads has them, with fixed weights.
    before: Vec<QuantUnit>,
    /// All units in full precision.
    full_precision: Vec<Unit>,
}

/// One term of the meta-loss.
pub struct Part {
    pub term: &'static Term,
    pub weight: f64,
    /// Unweighted, one element.
    pub loss: Tensor,
    /// Of the unweighted loss with respect to the transformed images; `None` where it is zero by construction.
    pub gradient: Option<Tensor>,
}

/// A virtual update and what its adjoint needs.
struct Unrolled<'a> {
    rule: Rule,
    /// Learning rate of each parameter.
    lr: Tensor,
    steps: Vec<Step<'a>>,
    /// `theta'`.
    updated: QuantUnit,
    /// Of the inner loss.
    target: Tensor,
}

/// Derivatives of `<u, g>` with respect to the unit's input and to its parameters.
struct Along {
    of_input: Option<Tensor>,
    of_theta: Tensor,
}

struct Step<'a> {
    /// The unit before the step.
    unit: QuantUnit,
    g: Tensor,
    /// Moments after the step.
    moments: Moments,
    masks: &'a dyn Masks,
}

impl<'a> MetaUnit<'a> {
    /// Unit `index` of `model`, which `phase` will reconstruct from what `prefix` gives. Weights of the units before it are rounded once, here.
    ///
    /// Errors: no memory on the device.
    pub fn new(
        (model, index): (&'a QuantModel, usize),
        phase: &'a Phase,
        prefix: Prefix,
        (meta, terms): (&'a Meta, &'a Terms),
    ) -> Result<Self> {
        let fixed = |units: &[QuantUnit], weights: Weights| {
            units.iter().map(|unit| unit.with_fixed_weights(weights)).collect::<Result<Vec<_>>>()
        };
        let before = fixed(&model.units[..index], Mode::of_prefix(prefix).weights)?;
        let full_precision = fixed(&model.units, Weights::FullPrecision)?.into_iter().map(|unit| unit.fp).collect();
        Ok(Self { model, index, phase, prefix, meta, terms, before, full_precision })
    }

    /// Losses of all terms for transformed images `t_x` `(N, C, H, W)`, unweighted, in the order of [`terms::active`].
    ///
    /// Errors: a term on labels for another number of these; shapes that do not fit the network.
    pub fn losses(&self, sample: &Sample, t_x: &Tensor, engine: Engine) -> Result<Vec<f64>> {
        let active = terms::active(self.terms);
        let logits = match active.iter().any(|(term, _)| matches!(term.loss, Loss::Outer(_))) {
            true => {
                let x_in = self.prefix(t_x, engine)?.detach();
                let unrolled = self.unroll(sample, t_x, &x_in, engine)?;
                Some(self.outer_logits(sample, &unrolled.updated, engine)?)
            }
            false => None,
        };
        let losses = active.iter().map(|(term, _)| self.loss(term, sample, t_x, logits.as_ref()));
        numbers(&losses.collect::<Result<Vec<_>>>()?)
    }

    /// Losses and gradients of all terms for transformed images `t_x` `(N, C, H, W)`, in the order of [`terms::active`].
    ///
    /// Gradients have the shape of `t_x`, and are constants: whoever has `t_x = T(x)` sends their weighted sum back through `T`. Errors: as for
    /// [`Self::losses`].
    pub fn parts(&self, sample: &Sample, t_x: &Tensor, engine: Engine) -> Result<Vec<Part>> {
        let active = terms::active(self.terms);
        let leaf = Var::from_tensor(&t_x.detach())?;
        let t_x = leaf.as_tensor();
        let _recording = Recording::begin();
        let mut outer = None;
        if active.iter().any(|(term, _)| matches!(term.loss, Loss::Outer(_))) {
            let x_in = self.prefix(t_x, engine)?;
            let unrolled = self.unroll(sample, t_x, &x_in.detach(), engine)?;
            let logits = self.outer_logits(sample, &unrolled.updated, engine)?;
            outer = Some((x_in, unrolled, logits));
        }
        let mut parts = Vec::with_capacity(active.len());
        for (term, weight) in active {
            let _recording = Recording::begin();
            let logits = outer.as_ref().map(|(_, _, logits)| logits);
            let loss = self.loss(term, sample, t_x, logits)?;
            let gradient = match (&term.loss, &outer) {
                (Loss::Outer(_), Some((x_in, unrolled, _))) if self.meta.inner != Inner::None => {
                    let of_input = self.through_update(sample, x_in, unrolled, &loss, engine)?;
                    tape::gradients_from(x_in, &of_input)?.remove(&leaf)
                }
                (Loss::Outer(_), _) => None,
                _ => tape::gradients(&loss)?.remove(&leaf),
            };
            parts.push(Part { term, weight, loss: loss.detach(), gradient: gradient.map(|g| g.detach()) });
        }
        Ok(parts)
    }

    fn loss(&self, term: &Term, sample: &Sample, t_x: &Tensor, logits: Option<&Tensor>) -> Result<Tensor> {
        match (&term.loss, logits) {
            (Loss::Outer(loss), Some(logits_q)) => {
                let (logits_fp, labels) = (sample.outer_logits, sample.outer_labels);
                scalar(logits_q, |logits_q| loss(&Outer { logits_q, logits_fp, labels }, self.meta))
            }
            (Loss::Outer(_), None) => {
                Err(Error::Shape { op: "meta-loss", problem: format!("{} without logits", term.name) })
            }
            (Loss::Images(loss), _) => scalar(t_x, |t_x| loss(&Images { x: sample.x, t_x }, self.meta)),
            (Loss::Features { mixed, loss }, _) => {
                let [mix_t, mix_x] = sample.mixes;
                let (of_t_x, of_x) = match mixed(self.meta) {
                    true => (self.features(&mix_t.apply(t_x)?)?, self.features(&mix_x.apply(sample.x)?)?),
                    false => (self.features(t_x)?, self.features(sample.x)?),
                };
                let of_x = &of_x.detach();
                scalar(&of_t_x, |of_t_x| loss(&Features { of_x, of_t_x }))
            }
        }
    }

    /// `theta'` after the virtual updates on transformed images whose unit input is `x_in`.
    fn unroll<'s>(&self, sample: &Sample<'s>, t_x: &Tensor, x_in: &Tensor, engine: Engine) -> Result<Unrolled<'s>> {
        let target = self.target(sample, t_x)?;
        let rule = Rule { inner: self.meta.inner, eps: self.meta.inner_eps };
        let own = &self.model.units[self.index];
        // Nothing below changes a parameter where it is.
        let mut unit = if unit_dtype(own) == t_x.dtype() { own.clone() } else { own.copy(t_x.dtype())? };
        let mut theta = flat(self.phase.parameters(&unit).into_iter().map(|(var, _)| Ok(var.as_detached_tensor())))?;
        let lr = flat(self.phase.parameters(&unit).into_iter().map(|(var, rate)| {
            let rate = rate.at(1, self.phase.iterations) * self.meta.inner_lr_factor;
            Tensor::full(rate, var.elem_count(), var.device())
        }))?;
        let mut moments = Moments::zeros(&theta)?;
        let mut steps = Vec::with_capacity(sample.inner_masks.len());
        for (k, masks) in sample.inner_masks.iter().enumerate() {
            let _recording = Recording::begin();
            let loss = self.inner_loss(&unit, sample.t, x_in, &target, *masks, engine)?;
            let g = self.gradient_of(&unit, &loss)?;
            (theta, moments) = rule.step(&theta, &g, &lr, &moments, k + 1)?;
            let next = with_values(&unit, self.phase, &theta)?;
            steps.push(Step { unit: std::mem::replace(&mut unit, next), g, moments: moments.clone(), masks: *masks });
        }
        Ok(Unrolled { rule, lr, steps, updated: unit, target })
    }

    /// `L_Q` of `unit`: reconstruction error and rounding regulariser. A prediction difference (PD-Quant's recipe) is left out:
    /// the outer loss judges the prediction already.
    fn inner_loss(
        &self,
        unit: &QuantUnit,
        t: usize,
        x_in: &Tensor,
        target: &Tensor,
        masks: &dyn Masks,
        engine: Engine,
    ) -> Result<Tensor> {
        let unit = &self.compared(unit);
        match engine {
            Engine::Fused => {
                let batch = Batch { x: x_in.clone(), y_fp: target.clone(), loss_weight: None, judged: None };
                Ok(self.phase.losses(unit, t, &batch, masks)?.total)
            }
            Engine::Plain(roundings) => {
                let pass = self.pass(unit, None, masks, roundings);
                let error = squared_error(&pass.forward(Dual::constant(x_in.clone()))?, target)?.value;
                let penalty = match self.phase.regulariser(t) {
                    Some(regulariser) => rounding_penalty(unit, None, regulariser)?,
                    None => None,
                };
                match penalty {
                    Some(penalty) => Ok(plain::add(&error, &penalty.value)?),
                    None => Ok(error),
                }
            }
        }
    }

    /// A pass of the unit in its training mode.
    fn pass<'p>(
        &self,
        unit: &'p QuantUnit,
        direction: Option<&'p QuantUnit>,
        masks: &'p dyn Masks,
        roundings: &'p Roundings,
    ) -> DualPass<'p> {
        DualPass { unit, direction, soft: true, learns: true, acts: self.phase.acts_of(masks), roundings }
    }

    /// `dL/dx_in` of `loss`, which depends on the updated unit.
    fn through_update(
        &self,
        sample: &Sample,
        x_in: &Tensor,
        unrolled: &Unrolled,
        loss: &Tensor,
        engine: Engine,
    ) -> Result<Tensor> {
        let Unrolled { rule, lr, steps, updated, target } = unrolled;
        let mut adjoint = self.gradient_of(updated, loss)?;
        let mut of_moments = Moments::zeros(&adjoint)?;
        let input = Var::from_tensor(&x_in.detach())?;
        let mut total = x_in.zeros_like()?.detach();
        for (k, step) in steps.iter().enumerate().rev() {
            let u;
            (u, of_moments) = rule.adjoint(&adjoint, &step.g, lr, (&step.moments, &of_moments), k + 1)?;
            // A direction of moderate size, whatever the learning rate: the derivative is linear in it.
            let (u, size) = normalised(&u)?;
            let Along { of_input, of_theta } = match self.meta.derivative {
                Derivative::Exact => self.along(sample.t, step, &u, &input, target, k > 0)?,
                Derivative::FiniteDifference => {
                    self.along_by_differences(sample.t, step, &u, &input, target, engine)?
                }
            };
            // What `theta_0` is does not depend on `T`.
            if k > 0 {
                adjoint = (adjoint + of_theta.broadcast_mul(&size)?)?;
            }
            if let Some(of_input) = of_input {
                total = (total + of_input.detach().broadcast_mul(&size.to_dtype(x_in.dtype())?)?)?;
            }
        }
        Ok(total)
    }

    /// Derivatives of `<u, g>` at `step`, exactly; that to the parameters, to which the regulariser belongs, only if it is `to_theta`.
    fn along(&self, t: usize, step: &Step, u: &Tensor, input: &Var, target: &Tensor, to_theta: bool) -> Result<Along> {
        let _recording = Recording::begin();
        let direction = self.compared(&direction(&step.unit, self.phase, u)?);
        let unit = self.compared(&step.unit);
        let fresh = Roundings::Fresh;
        let pass = DualPass { learns: to_theta, ..self.pass(&unit, Some(&direction), step.masks, &fresh) };
        let error = squared_error(&pass.forward(Dual::constant(input.as_tensor().clone()))?, target)?;
        let penalty = match self.phase.regulariser(t).filter(|_| to_theta) {
            Some(regulariser) => rounding_penalty(&unit, Some(&direction), regulariser)?,
            None => None,
        };
        let along = match (error.tangent, penalty.and_then(|penalty| penalty.tangent)) {
            (Some(error), Some(penalty)) => plain::add(&error, &penalty)?,
            (Some(along), None) | (None, Some(along)) => along,
            (None, None) => return Ok(Along { of_input: None, of_theta: u.zeros_like()? }),
        };
        let mut gradients = tape::gradients(&along)?;
        Ok(Along { of_theta: collect(&step.unit, self.phase, &gradients)?, of_input: gradients.remove(input) })
    }

    /// The same by central differences of the gradients of the inner loss.
    fn along_by_differences(
        &self,
        t: usize,
        step: &Step,
        u: &Tensor,
        input: &Var,
        target: &Tensor,
        engine: Engine,
    ) -> Result<Along> {
        let theta = flat(self.phase.parameters(&step.unit).into_iter().map(|(var, _)| Ok(var.as_detached_tensor())))?;
        // A scale moves relative to its value.
        let extent = flat(self.phase.parameters(&step.unit).into_iter().map(|(var, _)| {
            let mut learned = step.unit.weights.iter().flatten().flat_map(|weight| &weight.learned);
            let is_logit = learned.any(|learned| learned.id() == var.id());
            let value = var.as_detached_tensor();
            if is_logit { value.ones_like() } else { value.abs()?.maximum(1e-12) }
        }))?;
        let reach = (u.abs()? / extent)?.max(0)?.to_scalar::<f64>()?;
        if reach == 0.0 {
            return Ok(Along { of_input: None, of_theta: u.zeros_like()? });
        }
        let h = DIFFERENCE / reach;
        let at = |sign: f64| -> Result<(Option<Tensor>, Tensor)> {
            let unit = with_values(&step.unit, self.phase, &(&theta + (u * (sign * h))?)?)?;
            let _recording = Recording::begin();
            let loss = self.inner_loss(&unit, t, input.as_tensor(), target, step.masks, engine)?;
            let mut gradients = tape::gradients(&loss)?;
            Ok((gradients.remove(input), collect(&unit, self.phase, &gradients)?))
        };
        let ((of_input, of_theta), (of_input_back, of_theta_back)) = (at(1.0)?, at(-1.0)?);
        let of_input = match (of_input, of_input_back) {
            (Some(forward), Some(backward)) => Some(((forward - backward)? / (2.0 * h))?),
            _ => None,
        };
        Ok(Along { of_input, of_theta: ((of_theta - of_theta_back)? / (2.0 * h))? })
    }

    /// The gradient of `loss` to the parameters of `unit`.
    fn gradient_of(&self, unit: &QuantUnit, loss: &Tensor) -> Result<Tensor> {
        collect(unit, self.phase, &tape::gradients(loss)?)
    }

    /// What the unit reads `(N, ...)` when the network sees `x` `(N, C, H, W)`. Gradient: to `x`, straight through roundings.
    pub fn prefix(&self, x: &Tensor, engine: Engine) -> Result<Tensor> {
        match (self.prefix, engine) {
            (Prefix::FullPrecision, _) => through(self.full_precision[..self.index].iter(), x),
            (prefix, Engine::Fused) => {
                let mode = Mode { weights: Weights::FullPrecision, ..Mode::of_prefix(prefix) };
                self.before.iter().try_fold(x.clone(), |x, unit| unit.forward(&x, mode))
            }
            (prefix, Engine::Plain(roundings)) => {
                self.model.units[..self.index].iter().try_fold(x.clone(), |x, unit| {
                    let acts = if prefix == Prefix::Quantized { Acts::Quantized } else { Acts::FullPrecision };
                    let pass = DualPass { unit, direction: None, soft: false, learns: false, acts, roundings };
                    Ok(pass.forward(Dual::constant(x))?.value)
                })
            }
        }
    }

    /// What of `unit`, which is the meta-unit or a copy of it, is compared with the target of the inner loss.
    fn compared(&self, unit: &QuantUnit) -> QuantUnit {
        match part::Part::lone_convolution(unit, self.phase.conv_target) {
            Some(part) => part.unit,
            None => unit.clone(),
        }
    }

    /// The target of the inner loss `(N, ...)`: what the full-precision network has at the end of what is compared when it sees `t_x`. A constant.
    pub fn target(&self, sample: &Sample, t_x: &Tensor) -> Result<Tensor> {
        match &sample.target {
            Some(target) => Ok(target.clone()),
            None => {
                let x = through(self.full_precision[..self.index].iter(), &t_x.detach())?;
                Ok(forward(&self.compared(&self.model.units[self.index]).fp, &x, &FullPrecision)?.detach())
            }
        }
    }

    /// Logits `(N, K)` of the outer images: `unit` in its training mode, the units after it in full precision. Gradient: to its parameters.
    fn outer_logits(&self, sample: &Sample, unit: &QuantUnit, engine: Engine) -> Result<Tensor> {
        let y = match engine {
            Engine::Fused => {
                let soft = unit.soft_weights(None)?;
                unit.forward(sample.outer_input, self.phase.mode(&soft, sample.outer_masks))?
            }
            Engine::Plain(roundings) => {
                let pass = self.pass(unit, None, sample.outer_masks, roundings);
                pass.forward(Dual::constant(sample.outer_input.clone()))?.value
            }
        };
        through(self.full_precision[self.index + 1..].iter(), &y)
    }

    /// What the last layer of the full-precision network reads when it sees `x`: `(N, F)`. Gradient: to `x`.
    fn features(&self, x: &Tensor) -> Result<Tensor> {
        let Some((last, before)) = self.full_precision.split_last() else {
            return Err(Error::Shape { op: "features", problem: "a network without units".to_string() });
        };
        let x = through(before.iter(), x)?;
        let linear = last.nodes.iter().rev().find(|node| matches!(node.op, Op::Linear(_)));
        let source = linear.map_or(Source::Input, |node| node.inputs[0]);
        Ok(plain::flatten_from(&read(last, &x, &FullPrecision, source)?, 1)?)
    }
}
