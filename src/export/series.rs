//! The numbers of a run: single ones, and those of each iteration.

use super::{Exported, part};
use crate::experiment::facts::{FACTS, Unit};
use crate::store::record::Record;
use ptq::recon::event::Point;
use ptq::recon::trace::UnitTrace;

/// A single number, measured at the end of a run.
pub struct Single {
    pub group: &'static str,
    pub name: &'static str,
    pub value: f64,
}

/// Numbers of one phase of a unit, all at the same iterations.
pub struct PhaseSeries {
    pub steps: Vec<usize>,
    /// Seconds since 1970 of each step, spread evenly over the phase.
    pub times_s: Vec<f64>,
    /// By key, as long as the steps.
    pub values: Vec<(String, Vec<f64>)>,
}

/// When the run ended, in seconds since 1970.
pub fn end_s(record: &Record) -> f64 {
    record.provenance.started_unix_s as f64 + record.cost.wall_s
}

/// Accuracies as fractions, costs in seconds and bytes.
pub fn singles(record: &Record) -> Vec<Single> {
    let facts = FACTS.iter().filter_map(|fact| {
        let group = if fact.unit == Unit::Fraction { "accuracy" } else { "cost" };
        Some(Single { group, name: fact.column, value: record.fact(fact)? })
    });
    let images = record.metrics.as_ref().map(|metrics| metrics.test_images as f64);
    facts.chain(images.map(|value| Single { group: "accuracy", name: "test_images", value })).collect()
}

/// What the numbers of one phase of a unit are called: `loss/<unit>/<phase>`, `regulariser/<unit>/<phase>`, `terms/<unit>/<term>` and
/// `gradient_norm/<unit>/<term>`.
#[derive(Clone, Debug)]
pub struct Keys {
    loss: String,
    regulariser: String,
    /// Of each term, its loss and its gradient's norm.
    terms: Vec<(String, String)>,
}

impl Keys {
    /// Of `unit` in `phase`, whose meta-loss has these `terms`.
    pub fn new<'a>(unit: &str, phase: &str, terms: impl Iterator<Item = &'a str>) -> Self {
        let (unit, phase) = (part(unit), part(phase));
        let of_term = |term: &str| {
            let term = part(term);
            (format!("terms/{unit}/{term}"), format!("gradient_norm/{unit}/{term}"))
        };
        Self {
            terms: terms.map(of_term).collect(),
            loss: format!("loss/{unit}/{phase}"),
            regulariser: format!("regulariser/{unit}/{phase}"),
        }
    }

    /// The numbers of one step, by key.
    pub fn values(&self, point: &Point) -> Vec<(String, f64)> {
        let mut values = vec![(self.loss.clone(), point.loss)];
        values.extend(point.regulariser.map(|value| (self.regulariser.clone(), value)));
        for ((loss, gradient_norm), term) in self.terms.iter().zip(&point.terms) {
            values.push((loss.clone(), term.loss));
            values.push((gradient_norm.clone(), term.gradient_norm));
        }
        values
    }
}

/// The numbers of each phase by their [`Keys`]. Phases follow each other from the start of the run.
pub fn phases(run: &Exported) -> Vec<PhaseSeries> {
    let mut start_s = run.stored.record.provenance.started_unix_s as f64;
    let phases = run.traces.iter().map(|trace| {
        let phase = phase(trace, start_s);
        start_s += trace.wall_s;
        phase
    });
    phases.collect()
}

fn phase(trace: &UnitTrace, start_s: f64) -> PhaseSeries {
    let keys = Keys::new(&trace.unit, &trace.phase, trace.terms.iter().map(|term| term.name.as_str()));
    let last = trace.iterations.last().copied().unwrap_or(1).max(1) as f64;
    let mut values = vec![(keys.loss, &trace.loss), (keys.regulariser, &trace.regulariser)];
    for ((loss, gradient_norm), term) in keys.terms.into_iter().zip(&trace.terms) {
        values.extend([(loss, &term.loss), (gradient_norm, &term.gradient_norm)]);
    }
    PhaseSeries {
        times_s: trace.iterations.iter().map(|t| start_s + trace.wall_s * *t as f64 / last).collect(),
        steps: trace.iterations.clone(),
        // A meta-loss has no regulariser; what was cut by hand is left out.
        values: values
            .into_iter()
            .filter(|(_, values)| !values.is_empty() && values.len() == trace.iterations.len())
            .map(|(key, values)| (key, values.clone()))
            .collect(),
    }
}
