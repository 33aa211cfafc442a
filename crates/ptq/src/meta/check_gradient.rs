//! Compares the meta-gradient with central differences on a small random problem.
//!
//! The problem has a stem, one residual unit and a classifier, two 8x8 images, and a transform network of the configured
//! kind with at most 2 base channels and 2 levels, at random parameters. It is solved in `f64`, where roundings are kept as
//! they were at the point itself: straight-through gradients are those of the function that this leaves
//! (`dual`). The fused `f32` path of a real run is then compared with the `f64` one.

use super::config::Meta;
use super::gradient::{Engine, MetaUnit, Part};
use super::nets::{NormStatistics, Transform, TransformNet};
use super::sample::{Mix, Sample};
use super::terms::Terms;
use crate::error::{Error, Result};
use crate::graph::forward::through;
use crate::graph::{Conv, Linear, Network, Node, Op, Role, Source, Unit};
use crate::ops::conv::{Geometry, Padding};
use crate::ops::dual::Roundings;
use crate::ops::tape;
use crate::quant::model::{Masks, Mode, QuantModel};
use crate::recipe::Recipe;
use crate::recipe::{Bits, Setting};
use crate::recon::train::{KeyedMasks, Phase};
use crate::rng::Stream;
use candle_core::{DType, Device, Tensor, Var};
use std::cell::{Cell, RefCell};

const IMAGES: usize = 2;
const CHANNELS: usize = 3;
const SIDE: usize = 8;
const WIDTH: usize = 4;
const CLASSES: usize = 5;
/// Random directions in each parameter tensor of `T` along which the gradient is compared.
const DIRECTIONS: usize = 2;
/// Step of the central differences.
const STEP: f64 = 1e-6;
/// What a central difference of losses near 1 cannot tell from 0.
const RESOLUTION: f64 = 1e-9;
/// Largest relative error of a gradient that passes.
const TOLERANCE: f64 = 1e-6;
/// The same for the `f32` path.
const TOLERANCE_F32: f64 = 1e-3;

/// The gradient of one unweighted term with respect to the parameters of `T`.
#[derive(Clone, Debug)]
pub struct Checked {
    /// As in `[terms]`.
    pub term: &'static str,
    /// Norm of the gradient.
    pub norm: f64,
    /// Distance to the central differences over all directions, relative to their norm.
    pub error: f64,
    /// Distance of the `f32` gradient, relative to its norm.
    pub error_f32: f64,
    pub verdict: Verdict,
}

/// What a comparison shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    Wrong,
    /// Too few directions without kinks nearby; try another problem.
    NotSmooth,
    /// Both are too small to be compared: the term does not reach `T` (see [`super::config::Inner`]).
    TooSmall,
}

/// Checks all terms with a weight, for the 2-bit problem that `seed` draws.
///
/// Errors: nothing to check (a network without parameters, no terms).
pub fn check_gradient(
    transform: &Transform,
    meta: &Meta,
    terms: &Terms,
    recipe: &Recipe,
    seed: u64,
) -> Result<Vec<Checked>> {
    let problem = Problem::new(transform, meta, terms, recipe, seed)?;
    let vars: Vec<Var> = problem.net.parameters.vars().cloned().collect();
    if vars.is_empty() {
        return Err(Error::Settings(format!("transform.net = \"{}\" has nothing to learn", transform.net.0.name)));
    }
    let exact = problem.gradients(DType::F64)?;
    if exact.is_empty() {
        return Err(Error::Settings("all weights in [terms] are 0: there is nothing to check".to_string()));
    }
    let recorded = Roundings::Record(RefCell::new(Vec::new()));
    problem.losses(&recorded)?;
    let Roundings::Record(recorded) = recorded else { return Ok(Vec::new()) };
    let recorded = recorded.into_inner();

    let start: Vec<Tensor> =
        vars.iter().map(|var| var.as_detached_tensor().copy()).collect::<candle_core::Result<_>>()?;
    let (mut along, mut differences) = (vec![Vec::new(); exact.len()], vec![Vec::new(); exact.len()]);
    let directions = DIRECTIONS * vars.len();
    for index in 0..directions {
        let moved = index % vars.len();
        let (var, start) = (&vars[moved], &start[moved]);
        let direction = noise(problem.stream.named("direction").at(index as u64), start.dims())?;
        let difference = |step: f64| -> Result<Vec<f64>> {
            let at = |step: f64| -> Result<Vec<f64>> {
                var.set(&(start + (&direction * step)?)?)?;
                problem.losses(&Roundings::Replay(recorded.clone(), Cell::new(0)))
            };
            let (forward, backward) = (at(step)?, at(-step)?);
            Ok(forward.iter().zip(&backward).map(|(forward, backward)| (forward - backward) / (2.0 * step)).collect())
        };
        let (near, far) = (difference(STEP)?, difference(4.0 * STEP)?);
        for (term, (near, far)) in near.into_iter().zip(far).enumerate() {
            // Two steps that disagree have a kink between them (a ReLU or a maximum that switches): no derivative there.
            if (near - far).abs() > TOLERANCE / 10.0 * near.abs() + RESOLUTION {
                continue;
            }
            differences[term].push(near);
            along[term].push((&exact[term].1[moved] * &direction)?.sum_all()?.to_scalar::<f64>()?);
        }
        var.set(start)?;
    }
    let fused = problem.gradients(DType::F32)?;
    exact
        .iter()
        .zip(&fused)
        .zip(along.iter().zip(&differences))
        .map(|(((term, exact), (_, fused)), (along, differences))| {
            let norm = norm_of(exact)?;
            let scale = length(differences).max(length(along));
            let distance = length(&along.iter().zip(differences).map(|(a, b)| a - b).collect::<Vec<_>>());
            let apart: Vec<Tensor> =
                exact.iter().zip(fused).map(|(a, b)| Ok((a - b.to_dtype(DType::F64)?)?)).collect::<Result<_>>()?;
            let (error, error_f32) = (ratio(distance, scale), ratio(norm_of(&apart)?, norm));
            let verdict = match () {
                () if differences.len() < directions / 4 => Verdict::NotSmooth,
                () if scale < RESOLUTION => Verdict::TooSmall,
                () if distance > TOLERANCE * scale + RESOLUTION => Verdict::Wrong,
                () if error_f32 > TOLERANCE_F32 => Verdict::Wrong,
                () => Verdict::Right,
            };
            Ok(Checked { term, norm, error, error_f32, verdict })
        })
        .collect()
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn norm_of(gradients: &[Tensor]) -> Result<f64> {
    let mut squares = 0.0;
    for gradient in gradients {
        squares += gradient.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    }
    Ok(squares.sqrt())
}

/// Uniform in -1 to 1, `f64`.
fn noise(stream: Stream, shape: &[usize]) -> Result<Tensor> {
    let values: Vec<f64> = (0..shape.iter().product::<usize>() as u64).map(|i| 2.0 * stream.unit(i) - 1.0).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// The gradient of one term, one tensor per parameter of `T`.
type TermGradient = (&'static str, Vec<Tensor>);

struct Problem<'a> {
    /// In `f64`.
    net: TransformNet,
    transform: Transform,
    /// In `f32`, from which the `f64` one is made: they start from the same numbers.
    model: QuantModel,
    phase: Phase,
    recipe: Recipe,
    meta: &'a Meta,
    terms: &'a Terms,
    /// In `f64`.
    images: Tensor,
    outer_images: Tensor,
    labels: Vec<u32>,
    mixes: [Mix; 2],
    stream: Stream,
    /// The target of the inner loss at the point itself.
    target: Option<Tensor>,
}

impl<'a> Problem<'a> {
    fn new(transform: &Transform, meta: &'a Meta, terms: &'a Terms, recipe: &Recipe, seed: u64) -> Result<Self> {
        let stream = Stream::new(seed).named("check-gradient");
        let transform = Transform { base: transform.base.min(2), depth: transform.depth.min(2), ..transform.clone() };
        // The gradient factor of LSQ is a factor of a gradient, not the gradient of a function.
        let recipe = Recipe { lsq_gradient_factor: false, ..recipe.clone() };
        let images = noise(stream.named("images"), &[IMAGES, CHANNELS, SIDE, SIDE])?;
        let outer_images = noise(stream.named("outer"), &[IMAGES, CHANNELS, SIDE, SIDE])?;
        let network = network(stream.named("network"))?;
        let mut model = QuantModel::new(&network, Bits { w: 2, a: 2 }, Setting::Qdrop, &recipe)?;
        model.search_acts(&images.to_dtype(DType::F32)?, recipe.act_search, Mode::HARD)?;
        let net = TransformNet::new(&transform, CHANNELS, stream.named("transform"), DType::F64, &Device::Cpu)?;
        // Away from the identity, where some terms have no gradient.
        for (index, var) in net.parameters.vars().enumerate() {
            let shift = noise(stream.named("shift").at(index as u64), var.dims())?;
            var.set(&(var.as_detached_tensor() + (shift * 0.2)?)?)?;
        }
        let mix = |side: u64| Mix { share: 0.7, partners: stream.named("mix").at(side).permutation(IMAGES) };
        let mut problem = Self {
            net,
            phase: Phase { iterations: meta.iterations.max(1), ..Phase::weights(&recipe) },
            model,
            transform,
            recipe,
            meta,
            terms,
            images,
            outer_images,
            labels: (0..IMAGES as u64).map(|i| stream.named("labels").below(i, CLASSES) as u32).collect(),
            mixes: [mix(0), mix(1)],
            stream,
            target: None,
        };
        problem.target = Some(problem.with(DType::F64, |unit, sample, _, t_x| unit.target(sample, t_x))?);
        Ok(problem)
    }

    /// Calls `f` with the unit, a sample and the transformed images, all of element type `dtype`.
    fn with<R>(&self, dtype: DType, f: impl Fn(&MetaUnit, &Sample, &TransformNet, &Tensor) -> Result<R>) -> Result<R> {
        let units = self.model.units.iter().map(|unit| unit.copy(dtype)).collect::<Result<_>>()?;
        let model = QuantModel { units };
        let x = self.images.to_dtype(dtype)?;
        let outer = self.outer_images.to_dtype(dtype)?;
        let outer_logits = through(model.units.iter().map(|unit| &unit.fp), &outer)?;
        let outer_input = through(model.units[..1].iter().map(|unit| &unit.fp), &outer)?;
        let keyed =
            |k: usize| KeyedMasks { stream: self.stream.named("masks").at(k as u64), drop: self.phase.drop_inside };
        let inner: Vec<KeyedMasks> = (1..=self.meta.unroll).map(keyed).collect();
        let inner: Vec<&dyn Masks> = inner.iter().map(|masks| masks as &dyn Masks).collect();
        let sample = Sample {
            // The last step: the regulariser is on.
            t: self.phase.iterations,
            x: &x,
            outer_input: &outer_input,
            outer_logits: &outer_logits,
            outer_labels: &self.labels,
            mixes: &self.mixes,
            inner_masks: &inner,
            outer_masks: &keyed(0),
            target: self.target.as_ref().map(|target| target.to_dtype(dtype)).transpose()?,
        };
        let unit = MetaUnit::new((&model, 1), &self.phase, self.recipe.unit_input, (self.meta, self.terms))?;
        if dtype == DType::F64 {
            return f(&unit, &sample, &self.net, &self.net.forward(&x, NormStatistics::Batch)?);
        }
        let net = TransformNet::new(&self.transform, CHANNELS, self.stream, dtype, &Device::Cpu)?;
        net.parameters.load(&self.net.parameters.tensors()?)?;
        f(&unit, &sample, &net, &net.forward(&x, NormStatistics::Batch)?)
    }

    /// In `f64`.
    fn losses(&self, roundings: &Roundings) -> Result<Vec<f64>> {
        self.with(DType::F64, |unit, sample, _, t_x| unit.losses(sample, t_x, Engine::Plain(roundings)))
    }

    /// By the fused operations in `f32`, by plain ones in `f64`.
    fn gradients(&self, dtype: DType) -> Result<Vec<TermGradient>> {
        self.with(dtype, |unit, sample, net, t_x| {
            let fresh = Roundings::Fresh;
            let engine = if dtype == DType::F64 { Engine::Plain(&fresh) } else { Engine::Fused };
            let parts = unit.parts(sample, t_x, engine)?;
            parts.iter().map(|part| Ok((part.term.name, of_parameters(net, t_x, part)?))).collect()
        })
    }
}

/// The gradient of `part` with respect to the parameters of `net`, whose output is `t_x`.
fn of_parameters(net: &TransformNet, t_x: &Tensor, part: &Part) -> Result<Vec<Tensor>> {
    let Some(of_t_x) = &part.gradient else {
        return net.parameters.vars().map(|var| Ok(var.zeros_like()?.detach())).collect();
    };
    let mut store = tape::gradients_from(t_x, of_t_x)?;
    net.parameters.vars().map(|var| Ok(store.remove(var).map_or_else(|| var.zeros_like(), Ok)?.detach())).collect()
}

/// Stem, one residual unit, classifier, with random weights.
fn network(stream: Stream) -> Result<Network> {
    let weight = |name: &str, shape: &[usize]| -> Result<Tensor> {
        let fan_in: usize = shape[1..].iter().product();
        Ok((noise(stream.named(name), shape)? * (6.0 / fan_in as f64).sqrt())?.to_dtype(DType::F32)?)
    };
    let conv = |name: &str, c_in: usize, input: Source| -> Result<Node> {
        let op = Op::Conv(Conv {
            weight: weight(name, &[WIDTH, c_in, 3, 3])?,
            bias: Some((noise(stream.named(name).at(1), &[WIDTH])? * 0.1)?.to_dtype(DType::F32)?),
            gain: None,
            geometry: Geometry { stride: 1, padding: Padding::Each(1), groups: 1 },
        });
        Ok(Node { name: name.to_string(), op, inputs: vec![input] })
    };
    let node = |name: &str, op: Op, inputs: &[Source]| Node { name: name.to_string(), op, inputs: inputs.to_vec() };
    let unit = |name: &str, role: Role, nodes: Vec<Node>| Unit { name: name.to_string(), role, nodes };
    let linear = Linear { weight: weight("fc", &[CLASSES, WIDTH])?, bias: None };
    Ok(Network {
        arch: "check-gradient",
        units: vec![
            unit(
                "stem",
                Role::Stem,
                vec![conv("stem", CHANNELS, Source::Input)?, node("relu", Op::Relu, &[Source::Node(0)])],
            ),
            unit(
                "block",
                Role::Block,
                vec![
                    conv("conv1", WIDTH, Source::Input)?,
                    node("relu1", Op::Relu, &[Source::Node(0)]),
                    conv("conv2", WIDTH, Source::Node(1))?,
                    node("add", Op::Add, &[Source::Node(2), Source::Input]),
                    node("relu2", Op::Relu, &[Source::Node(3)]),
                ],
            ),
            unit(
                "classifier",
                Role::Classifier,
                vec![
                    node("pool", Op::GlobalAvgPool, &[Source::Input]),
                    node("flatten", Op::Flatten, &[Source::Node(0)]),
                    node("fc", Op::Linear(linear), &[Source::Node(1)]),
                ],
            ),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::config::{Derivative, Inner};
    use crate::meta::nets::{NETS, NetName};
    use crate::meta::terms::TERMS;
    use crate::recipe::RoundingName;
    use crate::{arch, methods};

    fn recipe(method: &str) -> Recipe {
        (methods::find(method).unwrap().recipe)(arch::find("resnet20").unwrap())
    }

    /// An inner step long enough, and with an epsilon large enough, that the validation term is well conditioned.
    fn meta() -> Meta {
        let published = Meta::published(arch::find("resnet20").unwrap());
        Meta { inner_eps: 1e-2, inner_lr_factor: 300.0, temperature: 1.0, eps: 10.0, ..published }
    }

    fn all_right(net: &'static crate::meta::nets::NetSpec, meta: &Meta, method: &str) {
        let transform = Transform { net: NetName(net), ..Transform::published() };
        let checked = check_gradient(&transform, meta, &Terms::all(1.0), &recipe(method), 0).unwrap();
        assert_eq!(checked.len(), TERMS.len());
        for term in checked {
            assert_eq!(term.verdict, Verdict::Right, "{} {method} {:?} {term:?}", net.name, meta.inner);
        }
    }

    #[test]
    fn every_network_and_term_agrees_with_central_differences() {
        for net in NETS.iter().filter(|net| net.is_trainable) {
            all_right(net, &meta(), "genie-m");
        }
    }

    #[test]
    fn every_inner_rule_and_several_unrolled_steps_agree_with_central_differences() {
        for inner in [Inner::Sgd, Inner::Adam] {
            for unroll in [1, 3] {
                all_right(&NETS[0], &Meta { inner, unroll, ..meta() }, "genie-m");
            }
        }
    }

    #[test]
    fn recipes_with_other_quantizers_agree_with_central_differences() {
        for method in ["qdrop", "brecq"] {
            all_right(&NETS[0], &Meta { inner: Inner::Sgd, ..meta() }, method);
        }
    }

    #[test]
    fn every_rounding_agrees_with_central_differences() {
        for rounding in [RoundingName::Flexround, RoundingName::Nearest] {
            for unroll in [1, 3] {
                let meta = Meta { inner: Inner::Sgd, unroll, ..meta() };
                let recipe = Recipe { rounding, ..recipe("genie-m") };
                let checked = check_gradient(&Transform::published(), &meta, &Terms::all(1.0), &recipe, 0).unwrap();
                for term in checked {
                    assert_eq!(term.verdict, Verdict::Right, "{rounding:?} {unroll} {term:?}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_derivative_is_found_out() {
        // A difference quotient crosses roundings and kinks.
        let meta = Meta { derivative: Derivative::FiniteDifference, ..meta() };
        let checked =
            check_gradient(&Transform::published(), &meta, &Terms::published(), &recipe("genie-m"), 0).unwrap();
        assert_eq!(checked[0].verdict, Verdict::Wrong, "{checked:?}");
    }

    #[test]
    fn terms_that_do_not_reach_the_transform_are_told_from_right_ones() {
        let meta = Meta { inner: Inner::None, ..meta() };
        let checked =
            check_gradient(&Transform::published(), &meta, &Terms::published(), &recipe("genie-m"), 0).unwrap();
        assert_eq!((checked[0].term, checked[0].norm), ("val-kl", 0.0));
    }
}
