//! The numbers of a run: single ones, and those of each iteration.

use super::{Run, part};
use crate::experiment::facts::{FACTS, Unit};
use crate::store::record::Record;
use ptq::recon::trace::UnitTrace;

/// A single number, measured at the end of a run.
pub struct Single {
    pub group: &'static str,
    pub name: &'static str,
    pub value: f64,
}

/// Numbers of one phase of a unit, all at the same iterations.
pub struct Phase {
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

/// `loss/<unit>/<phase>`, `regulariser/<unit>/<phase>`, `terms/<unit>/<term>` and `gradient_norm/<unit>/<term>`, phase by
/// phase. Phases follow each other from the start of the run.
pub fn phases(run: &Run) -> Vec<Phase> {
    let mut start_s = run.stored.record.provenance.started_unix_s as f64;
    let phases = run.traces.iter().map(|trace| {
        let phase = phase(trace, start_s);
        start_s += trace.wall_s;
        phase
    });
    phases.collect()
}

fn phase(trace: &UnitTrace, start_s: f64) -> Phase {
    let (unit, name) = (part(&trace.unit), part(&trace.phase));
    let last = trace.iterations.last().copied().unwrap_or(1).max(1) as f64;
    let mut values = vec![(format!("loss/{unit}/{name}"), &trace.loss)];
    values.push((format!("regulariser/{unit}/{name}"), &trace.regulariser));
    for term in &trace.terms {
        let term_name = part(&term.name);
        values.push((format!("terms/{unit}/{term_name}"), &term.loss));
        values.push((format!("gradient_norm/{unit}/{term_name}"), &term.gradient_norm));
    }
    Phase {
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
