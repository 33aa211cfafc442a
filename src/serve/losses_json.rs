//! `losses.json`: what each phase of each unit lost, of the runs that are named, as the page that compares runs draws it.

use super::json::json;
use super::named::{Named, named};
use super::site::Site;
use crate::error::Result;
use crate::store::read_traces;
use ptq::recon::trace::UnitTrace;
use serde::Serialize;

#[derive(Serialize)]
struct Losses<'a> {
    runs: Vec<OfRun<'a>>,
    /// Which of the named runs are not stored.
    missing: Vec<&'a str>,
}

#[derive(Serialize)]
struct OfRun<'a> {
    name: &'a str,
    traces: Vec<Trace>,
    /// Why they could not be read.
    problem: Option<String>,
}

#[derive(Serialize)]
struct Trace {
    unit: String,
    phase: String,
    iterations: Vec<usize>,
    /// Seven digits are more than a curve shows, and half of what there is to send. Null where it is no number.
    loss: Vec<f32>,
}

/// The losses of the runs called `names`. A damaged file is named: it is no reason to draw nothing of the others.
///
/// Errors: too many.
pub fn losses(site: &Site, names: &[&str]) -> Result<Vec<u8>> {
    let (found, missing) = named(site, names)?;
    let losses = Losses { runs: found.iter().map(of_run).collect(), missing };
    json("losses", &losses)
}

fn of_run<'a>(named: &Named<'a>) -> OfRun<'a> {
    let (traces, problem) = match read_traces(&named.run().folder) {
        Ok(traces) => (traces.into_iter().map(trace).collect(), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    OfRun { name: named.name, traces, problem }
}

fn trace(UnitTrace { unit, phase, iterations, loss, .. }: UnitTrace) -> Trace {
    Trace { unit, phase, iterations, loss: loss.into_iter().map(|loss| loss as f32).collect() }
}
