//! What is kept of the training of a unit: its losses every few iterations, assembled from events.

use super::event::{Event, Point};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The losses of one unit while it was reconstructed, sampled every few iterations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitTrace {
    pub unit: String,
    /// `weights`, `activations` for a second phase, `correction` for that of a unit's inputs, `meta` for the training of a
    /// transform network.
    pub phase: String,
    pub iterations: Vec<usize>,
    /// Reconstruction error alone; what a correction minimises, mean over its batches; the meta-loss.
    #[serde(with = "finite_or_null")]
    pub loss: Vec<f64>,
    /// Weighted rounding regulariser; empty where only `loss` is minimised.
    #[serde(with = "finite_or_null")]
    pub regulariser: Vec<f64>,
    /// Weighted prediction difference (PD-Quant); empty without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "finite_or_null")]
    pub prediction: Vec<f64>,
    /// The terms of a meta-loss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<TermTrace>,
    pub wall_s: f64,
}

/// One term of a meta-loss at the iterations of its [`UnitTrace`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TermTrace {
    /// As in `[terms]`.
    pub name: String,
    pub weight: f64,
    /// Unweighted.
    #[serde(with = "finite_or_null")]
    pub loss: Vec<f64>,
    /// Norm of the gradient of the unweighted term with respect to the parameters of the transform network.
    #[serde(with = "finite_or_null")]
    pub gradient_norm: Vec<f64>,
}

/// JSON has no NaN and no infinity: they become null, and null becomes NaN.
mod finite_or_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        values.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let values = Vec::<Option<f64>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    }
}

/// Points per trace.
const TRACE_POINTS: usize = 100;

impl UnitTrace {
    pub fn new(unit: &str, phase: &str) -> Self {
        Self {
            unit: unit.to_string(),
            phase: phase.to_string(),
            iterations: Vec::new(),
            loss: Vec::new(),
            regulariser: Vec::new(),
            prediction: Vec::new(),
            terms: Vec::new(),
            wall_s: 0.0,
        }
    }

    /// Whether step `t` (from 1) of `iterations` leaves a point.
    pub fn is_due(t: usize, iterations: usize) -> bool {
        t == 1 || t.is_multiple_of(iterations.div_ceil(TRACE_POINTS)) || t == iterations
    }
}

/// Assembles the traces of a computation from its events.
#[derive(Debug, Default)]
pub struct Traces {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ended: Vec<UnitTrace>,
    /// The phase that goes on, and since when.
    current: Option<(UnitTrace, Instant)>,
}

impl Traces {
    /// Takes notice of an event.
    pub fn note(&self, event: &Event) {
        let mut state = self.lock();
        match event {
            Event::PhaseBegun { unit, phase, terms } => {
                state.end(None);
                let mut trace = UnitTrace::new(unit, phase);
                let empty = |name: &String, weight| TermTrace {
                    name: name.clone(),
                    weight,
                    loss: Vec::new(),
                    gradient_norm: Vec::new(),
                };
                trace.terms = terms.iter().map(|term| empty(&term.name, term.weight)).collect();
                state.current = Some((trace, Instant::now()));
            }
            Event::Point(point) => {
                if let Some((trace, _)) = &mut state.current {
                    trace.add(point);
                }
            }
            Event::PhaseEnded { wall_s } => state.end(Some(*wall_s)),
            Event::Unit { .. }
            | Event::Step { .. }
            | Event::Evaluated { .. }
            | Event::Halved { .. }
            | Event::Skipped { .. } => {}
        }
    }

    /// One trace per phase, in the order in which they ended. The last may be of a phase whose end nobody told: it took until now.
    pub fn finish(&self) -> Vec<UnitTrace> {
        let mut state = self.lock();
        state.end(None);
        std::mem::take(&mut state.ended)
    }

    /// What a panicking thread left in it is still a state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&mut self, wall_s: Option<f64>) {
        if let Some((mut trace, started)) = self.current.take() {
            trace.wall_s = wall_s.unwrap_or_else(|| started.elapsed().as_secs_f64());
            self.ended.push(trace);
        }
    }
}

impl UnitTrace {
    fn add(&mut self, point: &Point) {
        self.iterations.push(point.iteration);
        self.loss.push(point.loss);
        self.regulariser.extend(point.regulariser);
        self.prediction.extend(point.prediction);
        for (term, at) in self.terms.iter_mut().zip(&point.terms) {
            term.loss.push(at.loss);
            term.gradient_norm.push(at.gradient_norm);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::recon::event::{Control, Term, TermPoint};
    use std::sync::atomic::AtomicBool;

    #[test]
    fn traces_are_assembled_from_events_also_of_phases_that_fail_or_never_end() {
        let traces = Traces::default();
        let control = Control { observe: &|event| traces.note(&event), cancelled: &AtomicBool::new(false) };
        let tell = |event| (control.observe)(event);
        let term = Term { name: "margin".into(), weight: 2.0 };
        let failed: Result<(), Error> = control.phase(("stem", "meta"), vec![term], 0.0, || {
            let at = TermPoint { loss: 1.0, gradient_norm: f64::NAN };
            tell(Event::Point(Point { terms: vec![at], ..Point::of_loss(1, 3.0) }));
            Err(Error::Interrupted)
        });
        assert!(failed.is_err());
        tell(Event::PhaseBegun { unit: "stem".into(), phase: "weights".into(), terms: Vec::new() });
        for iteration in [1, 2] {
            let point = Point::of_loss(iteration, 0.5);
            tell(Event::Point(Point { regulariser: Some(f64::NAN), prediction: Some(0.25), ..point }));
        }
        let [meta, weights] = &traces.finish()[..] else { panic!("two traces") };
        assert_eq!((meta.unit.as_str(), meta.phase.as_str(), &meta.loss[..]), ("stem", "meta", &[3.0][..]));
        assert_eq!((meta.terms[0].weight, &meta.terms[0].loss[..]), (2.0, &[1.0][..]));
        assert!(meta.terms[0].gradient_norm[0].is_nan() && meta.regulariser.is_empty() && meta.wall_s > 0.0);
        assert_eq!((&weights.iterations[..], &weights.prediction[..]), (&[1, 2][..], &[0.25, 0.25][..]));
        assert!(weights.regulariser.len() == 2 && weights.wall_s > 0.0);
        assert!(traces.finish().is_empty());
    }
}
