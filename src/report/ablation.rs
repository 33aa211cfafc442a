//! How far each entry is from the first: paired differences of test accuracy with their intervals.

use super::bars::{Bar, Bars};
use super::figure::{Figure, finish, label};
use super::frame;
use super::paired::compare;
use super::pivot::Pivot;
use super::side::Side;
use crate::error::Result;
use crate::experiment::FigureSpec;
use polars::prelude::{Column, DataFrame};

/// Bars from the first entry to the others.
pub fn draw(spec: &FigureSpec, pivot: &Pivot) -> Result<Figure> {
    let ablation = ablation(spec, pivot);
    finish(spec, &bars(&ablation), frame_of(&ablation)?)
}

/// One entry against the first.
struct Effect {
    name: String,
    /// The entry minus the first; or why they could not be compared.
    against_first: std::result::Result<Difference, String>,
}

/// A paired difference, as fractions.
struct Difference {
    mean: f64,
    /// The ends of its interval.
    interval: (f64, f64),
    p: f64,
    /// Pairs of runs.
    pairs: usize,
}

/// The first entry and every other one beside it.
struct Ablation {
    baseline: String,
    effects: Vec<Effect>,
}

/// Of the entries of the figure, in their order.
fn ablation(spec: &FigureSpec, pivot: &Pivot) -> Ablation {
    let names: Vec<String> = pivot.columns.iter().map(|values| label(&spec.x, values)).collect();
    let side = |column: usize| {
        let cells = pivot.entries.get(&(0, column));
        let runs = cells.map(|cells| cells.done.as_slice()).unwrap_or_default();
        let runs = runs.iter().map(|run| (run.record.cell.seed, (*run).clone())).collect();
        Side { query: names.get(column).cloned().unwrap_or_default(), runs, failed: Vec::new() }
    };
    let effects = (1..names.len()).map(|column| {
        let (first, other) = (side(0), side(column));
        let missing = [&other, &first].into_iter().find(|side| side.runs.is_empty());
        let against_first = match missing {
            Some(side) => Err(format!("no run of {} is finished", side.query)),
            None => compare(&[other, first]).map_err(|error| error.to_string()).and_then(|comparisons| {
                let comparison = comparisons.first().ok_or("nothing to compare")?;
                Ok(Difference {
                    mean: comparison.difference,
                    interval: comparison.interval,
                    p: comparison.p,
                    pairs: comparison.seeds.len(),
                })
            }),
        };
        Effect { name: names[column].clone(), against_first }
    });
    Ablation { effects: effects.collect(), baseline: names.first().cloned().unwrap_or_default() }
}

fn bars(ablation: &Ablation) -> Bars {
    let bar = |effect: &Effect| {
        let Difference { mean, interval: (low, high), .. } = effect.against_first.as_ref().ok()?;
        let text = format!("{:+.2}", 100.0 * mean);
        Some(Bar { value: 100.0 * mean, low: 100.0 * low, high: 100.0 * high, text })
    };
    Bars {
        names: ablation.effects.iter().map(|effect| effect.name.clone()).collect(),
        series: vec![String::new()],
        bars: ablation.effects.iter().map(|effect| vec![bar(effect)]).collect(),
        title: format!("test top-1 over {} (points)", ablation.baseline),
        from_zero: true,
    }
}

fn frame_of(ablation: &Ablation) -> Result<DataFrame> {
    let effects = &ablation.effects;
    let number = |name: &str, of: fn(&Difference) -> f64| {
        let values = effects.iter().map(|effect| effect.against_first.as_ref().ok().map(of));
        Column::new(name.into(), values.collect::<Vec<_>>())
    };
    let names: Vec<&str> = effects.iter().map(|effect| effect.name.as_str()).collect();
    let reasons: Vec<Option<&str>> =
        effects.iter().map(|effect| effect.against_first.as_ref().err().map(String::as_str)).collect();
    let columns = vec![
        Column::new("x".into(), names),
        Column::new("baseline".into(), vec![ablation.baseline.as_str(); effects.len()]),
        number("difference", |difference| difference.mean),
        number("low", |difference| difference.interval.0),
        number("high", |difference| difference.interval.1),
        number("p", |difference| difference.p),
        number("pairs", |difference| difference.pairs as f64),
        Column::new("not_compared".into(), reasons),
    ];
    DataFrame::new(effects.len(), columns).map_err(frame::failed)
}
