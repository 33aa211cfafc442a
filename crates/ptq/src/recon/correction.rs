//! Distribution correction (PD-Quant, arXiv 2212.07048; published `GetDcFpLayerInpOut`): moves the full-precision inputs of a
//! unit until its BatchNorm layers see the statistics that they were trained with.

use super::activations::{Activations, Collector};
use super::event::{Control, Event, Point};
use super::midway::{Loops, Steps, Tensors, Training, value};
use super::schedule::Plateau;
use super::trace::UnitTrace;
use super::train::{add_moments, set_moments};
use crate::error::{Error, Result};
use crate::graph::forward::{Hooks, read};
use crate::graph::{Op, Source, Unit};
use crate::ops::adam::{self, AdamState};
use crate::ops::device::Repeating;
use crate::ops::recon_error::recon_error;
use crate::ops::statistics::{Statistics, statistics_error};
use crate::ops::tape::{self, Recording, plain};
use crate::recipe::Recipe;
use candle_core::{Device, Tensor, Var};
use std::cell::RefCell;
use std::ops::Range;
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
    pub fn correct(&self, unit: &Unit, x: &Activations, control: &Control, loops: &Loops) -> Result<Activations> {
        let layers = norms(unit)?;
        let Some(last) = layers.iter().rposition(Option::is_some) else { return Ok(x.clone()) };
        let _span = info_span!("train", phase = PHASE).entered();
        let objective = Objective { unit, layers: &layers, last: Source::Node(last), lambda: self.lambda };
        loops.phase((&unit.name, PHASE), Vec::new(), control, |steps| {
            let batches = x.images()?.div_ceil(self.batch);
            let (mut corrected, whole) = self.earlier(x, steps)?;
            if whole < batches {
                let due = (1..=self.iterations).filter(|&t| UnitTrace::is_due(t, self.iterations));
                let mut points: Vec<Point> = due.map(|t| Point::of_loss(t, 0.0)).collect();
                let outcome = self.run(&objective, x, whole..batches, (control, steps), (&mut corrected, &mut points));
                points.into_iter().for_each(|point| steps.tell(point));
                outcome?;
            } else {
                steps.resume(&mut Whole)?;
            }
            // What is soon done again is not worth the disk.
            if steps.is_long() {
                steps.keep_rows(&corrected, self.batch, batches)?;
                steps.finish(batches * self.iterations, &Whole)?;
            }
            corrected.finish()
        })
    }

    /// Corrects `batches`, adding to the loss of each of `points` what each batch has at its iteration, so that it becomes the mean over all.
    fn run(
        &self,
        objective: &Objective,
        x: &Activations,
        batches: Range<usize>,
        (control, steps): (&Control, &mut Steps),
        (corrected, points): (&mut Collector, &mut [Point]),
    ) -> Result<()> {
        for batch in batches.clone() {
            let x_0 = self.rows(x, batch)?;
            let mut moved = Moved::new(&x_0, self, points)?;
            for t in steps.resume(&mut moved)? % self.iterations + 1..=self.iterations {
                control.check()?;
                let (_recording, _repeating) = (Recording::begin(), Repeating::on(x_0.device()));
                let loss = objective.loss(&moved.x, &x_0)?;
                let value = f64::from(loss.to_scalar::<f32>()?);
                if !value.is_finite() {
                    let unit = format!("{}, {PHASE} of its inputs", objective.unit.name);
                    return Err(Error::Diverged { unit, iteration: t, value });
                }
                if let Some(gradient) = tape::gradients(&loss)?.get(&moved.x) {
                    adam::step(&[adam::Step { state: &moved.adam, gradient, lr: moved.plateau.lr }], t, 1.0)?;
                }
                moved.plateau.observe(value);
                if let Ok(point) = moved.points.binary_search_by_key(&t, |point| point.iteration) {
                    moved.points[point].loss += value / batches.end as f64;
                }
                let (iteration, iterations) = (batch * self.iterations + t, batches.end * self.iterations);
                (control.observe)(Event::Step { phase: PHASE.to_string(), iteration, iterations, loss: value });
                // At its end a batch is not among those that are done yet.
                if t < self.iterations && steps.is_due() {
                    steps.keep_rows(corrected, self.batch, batch)?;
                    steps.made(iteration, &moved)?;
                }
            }
            corrected.push(&moved.x)?;
        }
        Ok(())
    }

    fn rows(&self, x: &Activations, batch: usize) -> Result<Tensor> {
        let start = batch * self.batch;
        x.narrow(start, self.batch.min(x.images()? - start))
    }

    /// The batches that an earlier attempt has left, and how many.
    fn earlier(&self, x: &Activations, steps: &mut Steps) -> Result<(Collector, usize)> {
        let nothing = || -> Result<Collector> { Ok(Collector::new(x.images()?, x.memory())) };
        let (mut corrected, whole) = (nothing()?, steps.found() / self.iterations);
        for batch in 0..whole {
            let x_0 = self.rows(x, batch)?;
            match steps.find_rows(batch, &x_0)? {
                Some(rows) => corrected.push(&rows)?,
                None => return Ok((nothing()?, 0)),
            }
        }
        Ok((corrected, whole))
    }
}

/// A batch that is being corrected.
struct Moved<'a> {
    x: Var,
    adam: AdamState,
    plateau: Plateau,
    /// Of the batches so far.
    points: &'a mut [Point],
}

impl<'a> Moved<'a> {
    fn new(x_0: &Tensor, correction: &Correction, points: &'a mut [Point]) -> Result<Self> {
        let x = Var::from_tensor(&x_0.copy()?)?;
        let adam = AdamState::new(&x)?;
        let plateau = Plateau::new(correction.lr, PLATEAU_FACTOR, PLATEAU_PATIENCE, LOWEST_LR);
        Ok(Self { x, adam, plateau, points })
    }
}

impl Training for Moved<'_> {
    fn state(&self, is_over: bool) -> Result<Tensors> {
        let losses: Vec<f64> = self.points.iter().map(|point| point.loss).collect();
        let mut state = Tensors::from([
            ("x".to_string(), self.x.as_detached_tensor().to_device(&Device::Cpu)?.copy()?),
            ("plateau".to_string(), Tensor::new(&self.plateau.state(), &Device::Cpu)?),
            ("losses".to_string(), Tensor::new(losses, &Device::Cpu)?),
        ]);
        add_moments(&mut state, 0, &self.adam, is_over)?;
        Ok(state)
    }

    fn set_state(&mut self, state: &Tensors) -> Result<()> {
        self.x.set(&value(state, "x")?.to_device(self.x.device())?)?;
        if let [lr, best, bad] = value(state, "plateau")?.to_vec1()?[..] {
            self.plateau.set_state([lr, best, bad]);
        }
        let losses = value(state, "losses")?.to_vec1()?;
        self.points.iter_mut().zip(losses).for_each(|(point, loss)| point.loss = loss);
        set_moments(state, 0, &mut self.adam)
    }
}

/// All that a correction leaves are its rows.
struct Whole;

impl Training for Whole {
    fn state(&self, _: bool) -> Result<Tensors> {
        Ok(Tensors::new())
    }

    fn set_state(&mut self, _: &Tensors) -> Result<()> {
        Ok(())
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
        let distance = plain::affine(&recon_error(x, x_0, None, 2.0)?, 1.0 / self.lambda, 0.0)?;
        Ok(errors.errors.into_inner().into_iter().try_fold(distance, |sum, error| plain::add(&sum, &error))?)
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
