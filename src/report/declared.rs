//! Tables that a grid declares: any keys of its cells against each other.

use super::accuracy::{Entry, Spread};
use super::paired::p_value;
use super::published;
use super::side::Side;
use super::statistics::{SIGNIFICANCE, holm};
use super::table::{Field, Group, Panel, Tables, failures, note, percent};
use crate::arch;
use crate::experiment::{Cell, Metric, Planned, TableSpec, table};
use crate::store::Stored;
use crate::store::record::{Metrics, Status};
use std::collections::BTreeMap;

/// One entry: the cells that it is of, and what is stored of them.
#[derive(Default)]
struct Cells<'a> {
    done: Vec<&'a Stored>,
    failed: Vec<&'a Stored>,
    /// Ids of those that were not run.
    missing: Vec<String>,
}

/// Row and column of an entry.
type At = (usize, usize);

/// The entries of a table, in the order of the grid.
struct Pivot<'a> {
    rows: Vec<Vec<String>>,
    columns: Vec<String>,
    entries: BTreeMap<At, Cells<'a>>,
}

/// The table `spec` of the cells in `plan`, from the runs `stored` of them.
pub fn declared(spec: &TableSpec, plan: &[Planned], stored: &[Stored]) -> Tables {
    let pivot = pivot(spec, plan, stored);
    let mut tables = Tables::default();
    let most = pivot.entries.values().map(|cells| cells.done.len()).max().unwrap_or(0);
    let few_missing = pivot.entries.values().map(|cells| cells.missing.len()).sum::<usize>() <= NAMED;
    let means: BTreeMap<At, Spread> = pivot
        .entries
        .iter()
        .filter(|(_, cells)| !cells.done.is_empty())
        .map(|(at, cells)| {
            (*at, Spread::of(&cells.done.iter().filter_map(|run| measured(spec, run)).collect::<Vec<_>>()))
        })
        .collect();
    let marks = marks(spec, &pivot, &means);
    let mut rows = full_precision(spec, &pivot);
    for (row, values) in pivot.rows.iter().enumerate() {
        let titles = spec.rows.iter().zip(values).map(|(key, value)| title(key, value));
        let mut line = vec![Field::text(titles.collect::<Vec<_>>().join(", "))];
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
    let columns = pivot.columns.iter().map(|value| title(&spec.columns, value));
    let header = [spec.rows.join(", ")].into_iter().chain(columns).collect();
    tables.groups.push(Group { caption: caption(spec), panels: vec![Panel { header, rows }] });
    tables.notes = notes(spec, most);
    tables
}

fn pivot<'a>(spec: &TableSpec, plan: &[Planned], stored: &'a [Stored]) -> Pivot<'a> {
    let by_id: BTreeMap<&str, &Stored> = stored.iter().map(|run| (run.record.run_id.as_str(), run)).collect();
    let mut pivot = Pivot { rows: Vec::new(), columns: Vec::new(), entries: BTreeMap::new() };
    for planned in plan.iter().filter(|planned| spec.selects(&planned.cell)) {
        let row: Vec<String> = spec.rows.iter().map(|key| table::value(&planned.cell, key)).collect();
        let column = table::value(&planned.cell, &spec.columns);
        let at = (position(&mut pivot.rows, row), position(&mut pivot.columns, column));
        let cells = pivot.entries.entry(at).or_default();
        let id = planned.id.to_string();
        match by_id.get(id.as_str()) {
            Some(run) if run.record.status == Status::Done => cells.done.push(run),
            Some(run) => cells.failed.push(run),
            None => cells.missing.push(id),
        }
    }
    pivot
}

/// Where `value` is in `values`, at whose end it is put if it is new.
fn position<T: PartialEq>(values: &mut Vec<T>, value: T) -> usize {
    values.iter().position(|known| *known == value).unwrap_or_else(|| {
        values.push(value);
        values.len() - 1
    })
}

/// A value as printed.
fn title(key: &str, value: &str) -> String {
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

fn measured(spec: &TableSpec, run: &Stored) -> Option<f64> {
    let metrics: &Metrics = run.record.metrics.as_ref()?;
    Some(match spec.metric {
        Metric::Test => metrics.test_top1,
        Metric::Calib => metrics.calib_top1,
        Metric::Gap => metrics.calib_top1 - metrics.test_top1,
        Metric::FullPrecision => metrics.fp_test_top1,
        Metric::Wall => run.record.cost.wall_s,
    })
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

/// The best of each column among entries that may be compared (same network, data and bits), and what does not differ
/// from it.
fn marks(spec: &TableSpec, pivot: &Pivot, means: &BTreeMap<At, Spread>) -> BTreeMap<At, Mark> {
    let mut marks = BTreeMap::new();
    if !matches!(spec.metric, Metric::Test | Metric::Calib) {
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
    let mut notes = failures(&Entry { statistics: None, failed: failed.collect() }, footnotes);
    notes.extend(match few_missing {
        true => cells.missing.iter().map(|id| note(format!("{id} was not run"), footnotes)).collect(),
        false if cells.missing.is_empty() => Vec::new(),
        false => vec![note(NOT_RUN.to_string(), footnotes)],
    });
    if let Some(Mark::Untested(why)) = mark {
        notes.push(note(format!("not tested against the best: {why}"), footnotes));
    }
    let Some(mean) = mean else { return Field { text: "–".to_string(), notes, ..Field::default() } };
    let number = match (spec.metric, mean.std) {
        (Metric::Wall, None) => format!("{:.1}", mean.mean),
        (Metric::Wall, Some(std)) => format!("{:.1} ± {std:.1}", mean.mean),
        _ => percent(*mean),
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
    if spec.metric != Metric::Test {
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
            accuracies.insert((position(&mut networks, row), *column), fp);
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
    let metric = match spec.metric {
        Metric::Test => "Test top-1 in percent.",
        Metric::Calib => "Top-1 on the calibration images in percent.",
        Metric::Gap => "Top-1 on the calibration images minus test top-1, in points.",
        Metric::FullPrecision => "Full-precision test top-1 in percent.",
        Metric::Wall => "Wall time per run in seconds.",
    };
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
