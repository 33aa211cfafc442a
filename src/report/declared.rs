//! Tables that a grid declares: any keys of its cells against each other.

use super::accuracy::{Entry, Spread};
use super::beside_published;
use super::caption::{departures_note, unpaired_note};
use super::frame;
use super::paired::p_value;
use super::pivot::{At, Cells, Pivot, pivot, title, titles};
use super::side::Side;
use super::statistics::{SIGNIFICANCE, holm};
use super::table::{Field, Group, Panel, Tables, failures, note, percent};
use crate::error::Result;
use crate::experiment::facts::Unit;
use crate::experiment::{Cell, Metric, TableSpec};
use crate::published::Published;
use crate::store::Planned;
use crate::store::Stored;
use crate::store::record::Record;
use polars::prelude::{Column, DataFrame};
use std::collections::BTreeMap;

/// A declared table for readers and for programs.
pub struct Tabulated {
    pub tables: Tables,
    /// One row per entry, numbers as fractions ([`long_frame`]).
    pub frame: DataFrame,
}

/// The table `spec` of the cells in `plan`, from the runs `stored` of them.
pub fn declared(spec: &TableSpec, plan: &[Planned], stored: &[Stored], published: &Published) -> Result<Tabulated> {
    let columns = [spec.columns.clone()];
    let pivot = pivot((&spec.rows, &columns), spec.filter.as_ref(), plan, stored);
    let mut tables = Tables::default();
    let most = pivot.entries.values().map(|cells| cells.done.len()).max().unwrap_or(0);
    let few_missing = pivot.entries.values().map(|cells| cells.missing.len()).sum::<usize>() <= NAMED;
    let means: BTreeMap<At, Spread> =
        pivot.entries.iter().filter_map(|(at, cells)| Some((*at, cells.spread(spec.metric)?))).collect();
    let marks = marks(spec, &pivot, &means);
    let mut rows = full_precision(spec, &pivot);
    for (row, values) in pivot.rows.iter().enumerate() {
        let mut line = vec![Field::text(titles(&spec.rows, values))];
        for column in 0..pivot.columns.len() {
            let at = (row, column);
            line.push(match pivot.entries.get(&at) {
                None => Field::default(),
                Some(cells) => {
                    field(spec, cells, (means.get(&at), marks.get(&at)), (most, few_missing), &mut tables.footnotes)
                }
            });
        }
        rows.push(line);
    }
    let header = pivot.columns.iter().map(|values| titles(&columns, values));
    let header: Vec<String> = [spec.rows.join(", ")].into_iter().chain(header).collect();
    let mut panels = vec![Panel { header, rows }];
    let records: Vec<Record> =
        pivot.entries.values().flat_map(|cells| &cells.done).map(|run| run.record.clone()).collect();
    let values: Vec<String> = pivot.columns.iter().map(|values| values.concat()).collect();
    tables.notes = notes(spec, most);
    beside_published::add(spec, &values, &records, published, &mut panels, &mut tables);
    tables.notes.extend(departures_note(&records));
    if spec.metric == Metric::TEST {
        tables.notes.extend(unpaired_note(&records));
    }
    tables.groups.insert(0, Group { caption: caption(spec), panels });
    Ok(Tabulated { tables, frame: long_frame(spec, &pivot, &means, &marks)? })
}

/// One row per entry: the values of its keys, the number of finished seeds, mean and standard deviation (accuracies as
/// fractions, wall time in seconds; null without a finished run), its mark, and the runs that failed or are missing.
fn long_frame(
    spec: &TableSpec,
    pivot: &Pivot,
    means: &BTreeMap<At, Spread>,
    marks: &BTreeMap<At, Mark>,
) -> Result<DataFrame> {
    let key = |(index, key): (usize, &String)| {
        let values: Vec<&str> = pivot.entries.keys().map(|at| pivot.rows[at.0][index].as_str()).collect();
        Column::new(key.as_str().into(), values)
    };
    let mut columns: Vec<Column> = spec.rows.iter().enumerate().map(key).collect();
    let of_columns: Vec<&str> = pivot.entries.keys().map(|at| pivot.columns[at.1][0].as_str()).collect();
    columns.push(Column::new(spec.columns.as_str().into(), of_columns));
    let text = |name: &str, of: &dyn Fn(&At, &Cells) -> Option<String>| {
        Column::new(name.into(), pivot.entries.iter().map(|(at, cells)| of(at, cells)).collect::<Vec<_>>())
    };
    let number = |name: &str, of: &dyn Fn(&Spread) -> Option<f64>| {
        Column::new(name.into(), pivot.entries.keys().map(|at| means.get(at).and_then(of)).collect::<Vec<_>>())
    };
    let listed = |ids: Vec<&str>| (!ids.is_empty()).then(|| ids.join(" "));
    let metric = spec.metric.name().to_string();
    columns.extend([
        text("metric", &|_, _| Some(metric.clone())),
        Column::new("n".into(), pivot.entries.values().map(|cells| cells.done.len() as u64).collect::<Vec<_>>()),
        number("mean", &|spread| Some(spread.mean)),
        number("std", &|spread| spread.std),
        text("mark", &|at, _| marks.get(at).map(|mark| mark.name().to_string())),
        text("failed", &|_, cells| listed(cells.failed.iter().map(|run| run.record.run_id.as_str()).collect())),
        text("missing", &|_, cells| listed(cells.missing.iter().map(String::as_str).collect())),
    ]);
    DataFrame::new(pivot.entries.len(), columns).map_err(frame::failed)
}

/// What marks an entry beside its number.
#[derive(Clone, Debug, PartialEq)]
enum Mark {
    Best,
    /// Not significantly different from the best.
    NotDifferent,
    /// Could not be tested, and why.
    Untested(String),
}

impl Mark {
    fn name(&self) -> &'static str {
        match self {
            Mark::Best => "best",
            Mark::NotDifferent => "not-different",
            Mark::Untested(_) => "untested",
        }
    }
}

/// The best of each column among entries that may be compared (same network, data and bits), and what does not differ
/// from it.
fn marks(spec: &TableSpec, pivot: &Pivot, means: &BTreeMap<At, Spread>) -> BTreeMap<At, Mark> {
    let mut marks = BTreeMap::new();
    if ![Metric::TEST, Metric::CALIB].contains(&spec.metric) {
        return marks;
    }
    let mut families: BTreeMap<_, Vec<At>> = BTreeMap::new();
    for at in means.keys() {
        if let Some(run) = pivot.entries.get(at).and_then(|cells| cells.done.first()) {
            let (cell, hashes): (&Cell, _) = (&run.record.cell, &run.record.hashes);
            let family = [cell.arch.clone(), hashes.weights.clone(), hashes.test.clone(), cell.bits.to_string()];
            families.entry((at.1, family)).or_default().push(*at);
        }
    }
    for members in families.values().filter(|members| members.len() > 1) {
        let mean = |at: &At| means.get(at).map_or(f64::NEG_INFINITY, |spread| spread.mean);
        let top = members.iter().map(mean).fold(f64::NEG_INFINITY, f64::max);
        let (best, others): (Vec<_>, Vec<_>) = members.iter().copied().partition(|at| mean(at) == top);
        marks.extend(best.iter().map(|at| (*at, Mark::Best)));
        if let (true, Some(best)) = (spec.significance, best.first()) {
            marks.extend(tested(pivot, best, &others));
        }
    }
    marks
}

/// Marks of `others`, each tested against `best`, corrected for their number.
fn tested(pivot: &Pivot, best: &At, others: &[At]) -> Vec<(At, Mark)> {
    let side = |at: &At| {
        let runs = pivot.entries.get(at).map(|cells| cells.done.as_slice()).unwrap_or_default();
        let query = runs.iter().map(|run| run.record.run_id.as_str()).collect::<Vec<_>>().join(", ");
        let runs = runs.iter().map(|run| (run.record.cell.seed, (*run).clone())).collect();
        Side { query, runs, failed: Vec::new() }
    };
    let best = side(best);
    let mut marks = Vec::new();
    let mut tested: Vec<(At, f64)> = Vec::new();
    for at in others {
        match p_value(&best, &side(at)) {
            Ok(p) => tested.push((*at, p)),
            Err(error) => marks.push((*at, Mark::Untested(error.to_string()))),
        }
    }
    let corrected = holm(&tested.iter().map(|(_, p)| *p).collect::<Vec<_>>());
    let alike = tested.iter().zip(corrected).filter(|(_, p)| *p >= SIGNIFICANCE);
    marks.extend(alike.map(|((at, _), _)| (*at, Mark::NotDifferent)));
    marks
}

/// Said instead of naming every run of a grid that is far from finished.
const NOT_RUN: &str = "not all seeds were run; `harness plan GRID` names what is left";
/// More missing runs than these are not named.
const NAMED: usize = 8;

fn field(
    spec: &TableSpec,
    cells: &Cells,
    (mean, mark): (Option<&Spread>, Option<&Mark>),
    (most, few_missing): (usize, bool),
    footnotes: &mut Vec<String>,
) -> Field {
    let failed = cells.failed.iter().map(|run| {
        let error = run.record.error.clone().unwrap_or_default();
        (run.record.run_id.clone(), error)
    });
    let mut notes = failures(&Entry { summary: None, failed: failed.collect() }, footnotes);
    notes.extend(match few_missing {
        true => cells.missing.iter().map(|id| note(format!("{id} was not run"), footnotes)).collect(),
        false if cells.missing.is_empty() => Vec::new(),
        false => vec![note(NOT_RUN.to_string(), footnotes)],
    });
    if let Some(Mark::Untested(why)) = mark {
        notes.push(note(format!("not tested against the best: {why}"), footnotes));
    }
    let Some(mean) = mean else { return Field { text: "–".to_string(), notes, ..Field::default() } };
    let shown = mean.scaled(spec.metric.scale());
    let number = match (spec.metric.fact().unit, shown.std) {
        (Unit::Fraction, _) => percent(*mean),
        (_, None) => format!("{:.1}", shown.mean),
        (_, Some(std)) => format!("{:.1} ± {std:.1}", shown.mean),
    };
    let dagger = if mark == Some(&Mark::NotDifferent) { " †" } else { "" };
    Field {
        text: format!("{number}{dagger}"),
        best: mark == Some(&Mark::Best),
        seeds: Some(cells.done.len()).filter(|n| *n < most),
        notes,
    }
}

/// A row of full-precision accuracies per network, above a table of test accuracies.
fn full_precision(spec: &TableSpec, pivot: &Pivot) -> Vec<Vec<Field>> {
    if spec.metric != Metric::TEST {
        return Vec::new();
    }
    let of = |run: &Stored| {
        let metrics = run.record.metrics.as_ref()?;
        Some((run.record.cell.arch.clone(), metrics.fp_test_top1))
    };
    let mut networks: Vec<String> = Vec::new();
    let mut accuracies: BTreeMap<At, f64> = BTreeMap::new();
    for ((_, column), cells) in &pivot.entries {
        for (arch, fp) in cells.done.iter().filter_map(|run| of(run)) {
            // Where networks are columns, one row holds them all.
            let row = if spec.columns == "arch" { String::new() } else { arch };
            let position = networks.iter().position(|known| *known == row).unwrap_or_else(|| {
                networks.push(row);
                networks.len() - 1
            });
            accuracies.insert((position, *column), fp);
        }
    }
    let several = networks.len() > 1;
    let line = |(row, arch): (usize, &String)| {
        let name =
            if several { format!("{}, full precision", title("arch", arch)) } else { "Full precision".to_string() };
        let value = |column: usize| match accuracies.get(&(row, column)) {
            Some(fp) => Field::text(format!("{:.2}", 100.0 * fp)),
            None => Field::default(),
        };
        [Field::text(name)].into_iter().chain((0..pivot.columns.len()).map(value)).collect()
    };
    networks.iter().enumerate().map(line).collect()
}

fn caption(spec: &TableSpec) -> String {
    let metric = spec.metric.fact().caption;
    if spec.caption.is_empty() { metric.to_string() } else { format!("{} {metric}", spec.caption) }
}

fn notes(spec: &TableSpec, most: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if most > 0 {
        let plural = if most == 1 { "" } else { "s" };
        notes.push(format!(
            "Mean ± standard deviation over {most} seed{plural}; their number in brackets where it is less."
        ));
    }
    if spec.significance {
        notes.push(
            "† not significantly different from the best of its column on the same test images: McNemar's exact test, the \
             seeds of an image together, Holm's correction, 5 %."
                .to_string(),
        );
    }
    notes
}
