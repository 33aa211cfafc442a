//! Runs of a grid's cells by keys of the cells: what declared tables and figures are made of.

use super::accuracy::Spread;
use crate::experiment::{Filter, Metric};
use crate::published;
use crate::store::Planned;
use crate::store::Stored;
use crate::store::record::Status;
use ptq::arch;
use std::collections::{BTreeMap, HashMap};

/// One entry: the cells that it is of, and what is stored of them.
#[derive(Default)]
pub struct Cells<'a> {
    pub done: Vec<&'a Stored>,
    pub failed: Vec<&'a Stored>,
    /// Ids of those that were not run.
    pub missing: Vec<String>,
}

impl Cells<'_> {
    /// Over the seeds; `None` unless a run is finished.
    pub fn spread(&self, metric: Metric) -> Option<Spread> {
        let values: Vec<f64> = self.done.iter().filter_map(|run| measured(metric, run)).collect();
        (!values.is_empty()).then(|| Spread::of(&values))
    }
}

/// Row and column of an entry.
pub type At = (usize, usize);

/// Entries by rows and columns, in the order of the grid.
pub struct Pivot<'a> {
    /// Of each row the values of its keys; that of a cell without variant is empty.
    pub rows: Vec<Vec<String>>,
    pub columns: Vec<Vec<String>>,
    pub entries: BTreeMap<At, Cells<'a>>,
}

/// The cells of `plan` that `filter` selects, with the runs `stored` of them.
pub fn pivot<'a>(
    (rows, columns): (&[String], &[String]),
    filter: Option<&Filter>,
    plan: &[Planned],
    stored: &'a [Stored],
) -> Pivot<'a> {
    let by_id: HashMap<&str, &Stored> = stored.iter().map(|run| (run.record.run_id.as_str(), run)).collect();
    let (mut of_row, mut of_column) = (Axis::default(), Axis::default());
    let mut entries: BTreeMap<At, Cells> = BTreeMap::new();
    for planned in plan.iter().filter(|planned| filter.is_none_or(|filter| filter.matches(&planned.cell))) {
        let fields = planned.cell.fields();
        let values = |keys: &[String]| keys.iter().map(|key| fields.get(key).cloned().unwrap_or_default()).collect();
        let cells = entries.entry((of_row.position(values(rows)), of_column.position(values(columns)))).or_default();
        let id = planned.id.to_string();
        match by_id.get(id.as_str()) {
            Some(run) if run.record.status == Status::Done => cells.done.push(run),
            Some(run) => cells.failed.push(run),
            None => cells.missing.push(id),
        }
    }
    Pivot { rows: of_row.values, columns: of_column.values, entries }
}

/// Distinct values in the order in which they are met.
#[derive(Default)]
struct Axis {
    values: Vec<Vec<String>>,
    positions: HashMap<Vec<String>, usize>,
}

impl Axis {
    fn position(&mut self, value: Vec<String>) -> usize {
        *self.positions.entry(value).or_insert_with_key(|value| {
            self.values.push(value.clone());
            self.values.len() - 1
        })
    }
}

/// A value as printed.
pub fn title(key: &str, value: &str) -> String {
    match key {
        "arch" => arch::find(value).map_or(value, |arch| arch.title).to_string(),
        "method" => published::title(value).to_string(),
        // A bare number or word would not say what it is.
        "bits" => value.to_string(),
        "variant" if value.is_empty() => "no variant".to_string(),
        "variant" | "dataset" => value.to_string(),
        key => format!("{} {value}", key.trim_start_matches("recipe.")),
    }
}

/// Values of several keys as printed.
pub fn titles(keys: &[String], values: &[String]) -> String {
    keys.iter().zip(values).map(|(key, value)| title(key, value)).collect::<Vec<_>>().join(", ")
}

pub fn measured(metric: Metric, run: &Stored) -> Option<f64> {
    // What a failed run took is not compared.
    run.record.metrics.as_ref()?;
    run.record.fact(metric.fact())
}
