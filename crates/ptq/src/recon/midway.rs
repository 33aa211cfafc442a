//! Where a unit stands in the middle of its training: a computation that was interrupted there goes on from it, with the same bits.
//!
//! Loops train something of a unit one after the other: a transform network, a correction of its inputs, the unit or each of its layers.
//! Mini-batches and masks follow from the number of a step, and what a loop begins with from the images and the loops before it. Kept are
//! what the loops trained, what the optimiser of the last one remembers, and how many steps they made.

use super::activations::Collector;
use super::event::{Control, Event, Point, Term};
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Values by name, on the CPU.
pub type Tensors = HashMap<String, Tensor>;

/// A unit in the middle of a phase.
#[derive(Clone, Debug, Default)]
pub struct Midway {
    /// `LOOP.NAME`, loops counted from 0.
    pub tensors: Tensors,
    /// In the order in which they began.
    pub loops: Vec<SoFar>,
}

/// How far a loop has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoFar {
    pub unit: String,
    pub phase: String,
    pub steps: usize,
    /// What it told of its losses.
    pub points: Vec<Point>,
    pub wall_s: f64,
}

/// What of unit `index` in `phase` is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place<'a> {
    pub phase: &'a str,
    pub index: usize,
    /// `None`: where it stands. Otherwise a batch of its corrected inputs, which are too large to be written again and again.
    pub batch: Option<usize>,
}

/// Keeps what is needed to go on in the middle of a unit. What is lost is only computed again.
pub trait Midways {
    /// Between two moments that are kept of the same unit.
    fn every(&self) -> Duration;

    fn find_midway(&self, place: Place) -> Option<Midway>;

    /// In place of what was there.
    fn keep_midway(&self, place: Place, midway: &Midway);
}

/// What a loop trains, and its optimiser.
pub trait Training {
    /// All that the next step depends on beside its number; once the loop `is_over`, what it leaves.
    fn state(&self, is_over: bool) -> Result<Tensors>;

    /// Takes over what [`Training::state`] gave.
    fn set_state(&mut self, state: &Tensors) -> Result<()>;
}

/// After a moment has been kept, none is for so many times what that took.
const REST: u32 = 20;

/// The loops of a unit in a phase.
pub struct Loops<'a> {
    kept: Option<(&'a dyn Midways, Place<'a>)>,
    state: RefCell<State>,
}

struct State {
    /// Where an earlier attempt stood, as far as this one has not come there yet.
    found: Midway,
    /// The loops that are over.
    over: Midway,
    /// When the next moment is kept.
    due: Instant,
}

impl<'a> Loops<'a> {
    /// Nothing is kept of them.
    pub fn unkept() -> Self {
        Self::new(None)
    }

    /// Of unit `index` in `phase`, kept in `midways`; they go on from what is there.
    pub fn of(midways: &'a dyn Midways, phase: &'a str, index: usize) -> Self {
        Self::new(Some((midways, Place { phase, index, batch: None })))
    }

    fn new(kept: Option<(&'a dyn Midways, Place<'a>)>) -> Self {
        let found = kept.and_then(|(midways, place)| midways.find_midway(place)).unwrap_or_default();
        let due = Instant::now() + kept.map_or(Duration::ZERO, |(midways, _)| midways.every());
        Self { kept, state: RefCell::new(State { found, over: Midway::default(), due }) }
    }

    /// Does `training`, a loop that is `phase` of `unit`, between the events of a phase.
    pub fn phase<T>(
        &self,
        (unit, phase): (&str, &str),
        terms: Vec<Term>,
        control: &Control,
        training: impl FnOnce(&mut Steps) -> Result<T>,
    ) -> Result<T> {
        let number = self.state.borrow().over.loops.len();
        let found = self.found(number, (unit, phase));
        let before_s = found.as_ref().map_or(0.0, |(so_far, _)| so_far.wall_s);
        let so_far = SoFar { unit: unit.into(), phase: phase.into(), steps: 0, points: Vec::new(), wall_s: before_s };
        let mut steps = Steps { loops: self, control, number, found, so_far, rows: 0, started: Instant::now() };
        let outcome = control.phase((unit, phase), terms, before_s, || training(&mut steps))?;
        let over = &mut self.state.borrow_mut().over;
        if over.loops.len() == number {
            // It is done again.
            over.loops.push(SoFar { steps: 0, wall_s: 0.0, points: Vec::new(), ..steps.so_far });
        }
        Ok(outcome)
    }

    /// What an earlier attempt left of loop `number`, which must be called so.
    fn found(&self, number: usize, (unit, phase): (&str, &str)) -> Option<(SoFar, Tensors)> {
        let found = &self.state.borrow().found;
        let so_far = found.loops.get(number).filter(|so_far| (&*so_far.unit, &*so_far.phase) == (unit, phase))?;
        let of_loop = |(name, value): (&String, &Tensor)| {
            Some((name.strip_prefix(&format!("{number}."))?.to_string(), value.clone()))
        };
        Some((so_far.clone(), found.tensors.iter().filter_map(of_loop).collect()))
    }
}

/// The steps of one loop.
pub struct Steps<'a> {
    loops: &'a Loops<'a>,
    control: &'a Control<'a>,
    number: usize,
    found: Option<(SoFar, Tensors)>,
    so_far: SoFar,
    /// Batches of rows that are kept.
    rows: usize,
    started: Instant,
}

impl Steps<'_> {
    /// Brings `training`, which is at its beginning, to where an earlier attempt left it, and tells again what was told; how many steps that
    /// made.
    pub fn resume(&mut self, training: &mut dyn Training) -> Result<usize> {
        let Some((found, tensors)) = self.found.take().filter(|(found, _)| found.steps > 0) else { return Ok(0) };
        let fits = |(name, value): (&String, &Tensor)| {
            tensors.get(name).is_some_and(|kept| (kept.shape(), kept.dtype()) == (value.shape(), value.dtype()))
        };
        // Another's is passed over, and all that came after it.
        let is_over = !tensors.keys().any(|name| name.starts_with(MOMENT));
        if !training.state(is_over)?.iter().all(fits) {
            self.forget();
            return Ok(0);
        }
        training.set_state(&tensors)?;
        found.points.into_iter().for_each(|point| self.tell(point));
        self.so_far.steps = found.steps;
        Ok(found.steps)
    }

    /// Tells of the losses of a step.
    pub fn tell(&mut self, point: Point) {
        if self.loops.kept.is_some() {
            self.so_far.points.push(point.clone());
        }
        (self.control.observe)(Event::Point(point));
    }

    /// Takes notice that `training` has made step `t`, and keeps that if it is time to, or if the user wants to stop.
    pub fn made(&mut self, t: usize, training: &dyn Training) -> Result<()> {
        self.so_far.steps = t;
        if self.is_due() { self.keep(training) } else { Ok(()) }
    }

    pub(super) fn is_due(&self) -> bool {
        self.loops.kept.is_some()
            && (Instant::now() >= self.loops.state.borrow().due || self.control.cancelled.load(Ordering::Relaxed))
    }

    fn keep(&mut self, training: &dyn Training) -> Result<()> {
        let Some((midways, place)) = self.loops.kept else { return Ok(()) };
        let started = Instant::now();
        let mut state = self.loops.state.borrow_mut();
        let mut midway = state.over.clone();
        midway.add(self.number, self.so_far(), training.state(false)?);
        midways.keep_midway(place, &midway);
        state.due = Instant::now() + midways.every().max(started.elapsed() * REST);
        Ok(())
    }

    /// Takes notice that the loop is over after step `t`.
    pub fn finish(&mut self, t: usize, training: &dyn Training) -> Result<()> {
        self.so_far.steps = t;
        let tensors = if self.loops.kept.is_some() { training.state(true)? } else { Tensors::new() };
        self.loops.state.borrow_mut().over.add(self.number, self.so_far(), tensors);
        Ok(())
    }

    fn so_far(&self) -> SoFar {
        SoFar { wall_s: self.so_far.wall_s + self.started.elapsed().as_secs_f64(), ..self.so_far.clone() }
    }
}

/// Of a correction, whose batches of rows are kept one by one.
impl Steps<'_> {
    /// Whether it has taken longer than what may be lost.
    pub(super) fn is_long(&self) -> bool {
        self.loops.kept.is_some_and(|(midways, _)| self.so_far().wall_s >= midways.every().as_secs_f64())
    }

    /// How many steps an earlier attempt made.
    pub(super) fn found(&self) -> usize {
        self.found.as_ref().map_or(0, |(found, _)| found.steps)
    }

    /// Batch `index` of its result as an earlier attempt left it, which is like `other`. Without one nothing is gone on from.
    pub(super) fn find_rows(&mut self, index: usize, other: &Tensor) -> Result<Option<Tensor>> {
        let find = |(midways, place): (&dyn Midways, Place)| {
            midways.find_midway(Place { batch: Some(index), ..place })?.tensors.remove(ROWS)
        };
        match self.loops.kept.and_then(find).filter(|rows| rows.shape() == other.shape()) {
            Some(rows) => {
                self.rows = index + 1;
                Ok(Some(rows.to_device(other.device())?))
            }
            None => {
                self.rows = 0;
                self.forget();
                Ok(None)
            }
        }
    }

    /// Keeps the batches before `end` of what is collected.
    pub(super) fn keep_rows(&mut self, collected: &Collector, batch: usize, end: usize) -> Result<()> {
        let Some((midways, place)) = self.loops.kept else { return Ok(()) };
        for index in self.rows..end {
            let rows = collected.narrow(index * batch, batch)?.to_device(&Device::Cpu)?;
            let midway = Midway { tensors: HashMap::from([(ROWS.to_string(), rows)]), loops: Vec::new() };
            midways.keep_midway(Place { batch: Some(index), ..place }, &midway);
        }
        self.rows = self.rows.max(end);
        Ok(())
    }

    fn forget(&mut self) {
        self.found = None;
        self.loops.state.borrow_mut().found = Midway::default();
    }
}

const ROWS: &str = "rows";
/// Begins the names of what only an optimiser needs.
pub(crate) const MOMENT: &str = "moment.";

impl Midway {
    fn add(&mut self, number: usize, so_far: SoFar, tensors: Tensors) {
        self.tensors.extend(tensors.into_iter().map(|(name, value)| (format!("{number}.{name}"), value)));
        self.loops.push(so_far);
    }
}

/// The value called `name`. Errors: there is none.
pub(crate) fn value<'a>(state: &'a Tensors, name: &str) -> Result<&'a Tensor> {
    state.get(name).ok_or_else(|| Error::Shape { op: "midway", problem: format!("it has no {name}") })
}
