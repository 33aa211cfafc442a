//! Distribution correction (PD-Quant, arXiv 2212.07048; published `GetDcFpLayerInpOut`): moves the full-precision inputs of a
//! unit until its BatchNorm layers see the statistics that they were trained with.

use super::activations::{Activations, Collector};
use super::event::{Control, Event, Point};
use super::schedule::Plateau;
use super::trace::UnitTrace;
use crate::error::{Error, Result};
use crate::graph::forward::{Hooks, read};
use crate::graph::{Op, Source, Unit};
use crate::ops::adam::{self, AdamState};
use crate::ops::recon_error::recon_error;
use crate::ops::statistics::{Statistics, statistics_error};
use crate::recipe::Recipe;
use candle_core::{Tensor, Var};
use std::cell::RefCell;
use tracing::info_span;

/// What the trace and the events of this phase are called.
const PHASE: &str = "correction";
/// The learning rate falls by this factor ...
const PLATEAU_FACTOR: f64 = 0.1;
/// ... after as many steps without a lower loss ...
const PLATEAU_PATIENCE: usize = 100;
/// ... and no further.
const LOWEST_LR: f64 = 1e-5;

/// How a unit's inputs are corrected.
#[derive(Clone, Copy, Debug)]
pub struct Correction {
    pub iterations: usize,
    pub lr: f64,
    /// Divides the distance from the original input.
    pub lambda: f64,
    /// Images that are corrected together; only the learning rate ties them to each other.
    pub batch: usize,
}

impl Correction {
    /// That of `recipe`, if it has one.
    pub fn of(recipe: &Recipe) -> Option<Self> {
        (recipe.correction_iterations > 0).then_some(Self {
            iterations: recipe.correction_iterations,
            lr: recipe.correction_lr,
            lambda: recipe.correction_lambda,
            batch: recipe.batch,
        })
    }

    /// `x`, moved to minimise the sum over the unit's BatchNorm layers of `statistics_error` at their inputs, plus
    /// `mean over images and positions of sum over channels of (x - x_0)^2 / lambda`, by Adam.
    ///
    /// `unit` has its BatchNorm layers; without any, nothing moves.  Shapes: `x` and result `(N, ...)`.
    pub fn correct(&self, unit: &Unit, x: &Activations, control: &Control) -> Result<Activations> {
        let layers = norms(unit)?;
        let Some(last) = layers.iter().rposition(Option::is_some) else { return Ok(x.clone()) };
        let _span = info_span!("train", phase = PHASE).entered();
        let objective = Objective { unit, layers: &layers, last: Source::Node(last), lambda: self.lambda };
        control.phase((&unit.name, PHASE), Vec::new(), || {
            let due = (1..=self.iterations).filter(|&t| UnitTrace::is_due(t, self.iterations));
            let mut points: Vec<Point> = due.map(|t| Point::of_loss(t, 0.0)).collect();
            let outcome = self.run(&objective, x, control, &mut points);
            points.into_iter().for_each(|point| (control.observe)(Event::Point(point)));
            outcome
        })
    }

    /// Adds to the loss of each of `points` what each batch has at its iteration, so that it becomes the mean over the batches.
    fn run(
        &self,
        objective: &Objective,
        x: &Activations,
        control: &Control,
        points: &mut [Point],
    ) -> Result<Activations> {
        let n = x.images()?;
        let batches = n.div_ceil(self.batch);
        let mut corrected = Collector::new(n, x.memory());
        for batch in 0..batches {
            let start = batch * self.batch;
            let x_0 = x.narrow(start, self.batch.min(n - start))?;
            let moved = Var::from_tensor(&x_0.copy()?)?;
            let state = AdamState::new(&moved)?;
            let mut plateau = Plateau::new(self.lr, PLATEAU_FACTOR, PLATEAU_PATIENCE, LOWEST_LR);
            for t in 1..=self.iterations {
                control.check()?;
                let loss = objective.loss(&moved, &x_0)?;
                let value = f64::from(loss.to_scalar::<f32>()?);
                if !value.is_finite() {
                    let unit = format!("{}, {PHASE} of its inputs", objective.unit.name);
                    return Err(Error::Diverged { unit, iteration: t, value });
                }
                if let Some(gradient) = loss.backward()?.get(&moved) {
                    adam::step(&[adam::Step { state: &state, gradient, lr: plateau.lr }], t, 1.0)?;
                }
                plateau.observe(value);
                if let Ok(point) = points.binary_search_by_key(&t, |point| point.iteration) {
                    points[point].loss += value / batches as f64;
                }
                let (iteration, iterations) = (batch * self.iterations + t, batches * self.iterations);
                (control.observe)(Event::Step { phase: PHASE.to_string(), iteration, iterations, loss: value });
            }
            corrected.push(&moved)?;
        }
        corrected.finish()
    }
}

/// The statistics of each node's input, for those that are BatchNorm layers.
fn norms(unit: &Unit) -> Result<Vec<Option<Statistics>>> {
    let of = |op: &Op| match op {
        Op::BatchNorm(norm) => Ok(Some(Statistics::new(&norm.mean, &norm.var)?)),
        _ => Ok(None),
    };
    unit.nodes.iter().map(|node| of(&node.op)).collect()
}

struct Objective<'a> {
    unit: &'a Unit,
    layers: &'a [Option<Statistics>],
    /// The last BatchNorm layer; nothing behind it matters.
    last: Source,
    lambda: f64,
}

impl Objective<'_> {
    fn loss(&self, x: &Tensor, x_0: &Tensor) -> Result<Tensor> {
        let errors = Errors { layers: self.layers, errors: RefCell::new(Vec::new()) };
        read(self.unit, x, &errors, self.last)?;
        let distance = (recon_error(x, x_0, None, 2.0)? / self.lambda)?;
        Ok(errors.errors.into_inner().into_iter().try_fold(distance, |sum, error| sum + error)?)
    }
}

/// Collects the errors of a pass.
struct Errors<'a> {
    layers: &'a [Option<Statistics>],
    errors: RefCell<Vec<Tensor>>,
}

impl Hooks for Errors<'_> {
    fn input(&self, node: usize, _slot: usize, z: Tensor) -> Result<Tensor> {
        if let Some(statistics) = &self.layers[node] {
            self.errors.borrow_mut().push(statistics_error(&z, statistics)?);
        }
        Ok(z)
    }
}
