//! Figures that a grid declares, each as SVG, PNG and the data that it shows.

use super::accuracy::Spread;
use super::bars::{Bar, Bars};
use super::canvas::{Drawing, png, svg_and_png, svg_of_pixels};
use super::figure_frames::{losses_frame, pictures_frame, terms_frame};
use super::frame;
use super::lines::{LinePanel, Lines};
use super::losses::{Losses, is_reconstruction};
use super::paired::compare;
use super::pivot::{At, Cells, Pivot, pivot, title};
use super::scatter::Scatter;
use super::side::Side;
use super::transform::{Part, Transforms, Unreadable, read_runs, readable};
use crate::error::Result;
use crate::experiment::facts::Unit;
use crate::experiment::{FigureKind, FigureSpec, Metric};
use crate::store::Planned;
use crate::store::{Stored, read_traces};
use polars::prelude::{Column, DataFrame};
use ptq::recipe::Bits;

/// A figure in all its formats.
pub struct Figure {
    pub name: String,
    pub caption: String,
    pub svg: String,
    pub png: Vec<u8>,
    /// Fractions and seconds.
    pub csv: Vec<u8>,
}

/// Renders the figures that a grid declares from the runs `stored` of the cells in `plan`.
///
/// With what is stored beside records and cannot be read: it is left out.
pub fn render_figures(
    specs: &[FigureSpec],
    plan: &[Planned],
    stored: &[Stored],
) -> Result<(Vec<Figure>, Vec<Unreadable>)> {
    let mut unreadable = Vec::new();
    let figures = specs.iter().map(|spec| figure(spec, plan, stored, &mut unreadable)).collect::<Result<_>>()?;
    Ok((figures, unreadable))
}

fn figure(spec: &FigureSpec, plan: &[Planned], stored: &[Stored], unreadable: &mut Vec<Unreadable>) -> Result<Figure> {
    let pivot = ordered(spec, pivot((&spec.series, &spec.x), spec.filter.as_ref(), plan, stored));
    match spec.kind {
        FigureKind::Lines => finish(spec, &lines(spec, &pivot), entries_frame(spec, &pivot)?),
        FigureKind::Bars => finish(spec, &bars(spec, &pivot), entries_frame(spec, &pivot)?),
        FigureKind::Cost => finish(spec, &cost(spec, &pivot), cost_frame(spec, &pivot)?),
        FigureKind::Ablation => {
            let ablation = ablation(spec, &pivot);
            finish(spec, &ablation_bars(&ablation), ablation_frame(&ablation)?)
        }
        FigureKind::Losses => {
            let (losses, runs) = losses(spec, &pivot, unreadable);
            finish(spec, &losses, losses_frame(&losses, &runs)?)
        }
        FigureKind::MetaTerms => {
            let runs = read_runs(&done(&pivot), unreadable);
            let parts = &[Part::Losses, Part::Norms];
            finish(spec, &Transforms { runs: &runs, parts }, terms_frame(&runs)?)
        }
        FigureKind::Images => {
            let runs = read_runs(&done(&pivot), unreadable);
            let drawing = Transforms { runs: &runs, parts: &[Part::Pictures] };
            let png = png(&drawing)?;
            let (svg, csv) = (svg_of_pixels(drawing.size(), &png), frame::to_csv(pictures_frame(&runs)?)?);
            Ok(Figure { name: spec.name.clone(), caption: spec.caption.clone(), svg, png, csv })
        }
    }
}

fn finish(spec: &FigureSpec, drawing: &impl Drawing, frame: DataFrame) -> Result<Figure> {
    let (svg, png) = svg_and_png(drawing)?;
    Ok(Figure { name: spec.name.clone(), caption: spec.caption.clone(), svg, png, csv: frame::to_csv(frame)? })
}

/// Every finished run, in the order of the figure.
fn done<'a>(pivot: &Pivot<'a>) -> Vec<&'a Stored> {
    pivot.entries.values().flat_map(|cells| cells.done.iter().copied()).collect()
}

/// The pivot with its columns in order of size: bits from many to few, numbers from small to large, others as in the grid.
fn ordered<'a>(spec: &FigureSpec, pivot: Pivot<'a>) -> Pivot<'a> {
    let [key] = &spec.x[..] else { return pivot };
    let size = |values: &Vec<String>| -> Option<f64> {
        let value = values.first()?;
        match key.as_str() {
            "bits" => value.parse::<Bits>().ok().map(|bits| -f64::from(100 * (bits.w + bits.a) + bits.w)),
            _ => value.parse().ok(),
        }
    };
    let Some(sizes) = pivot.columns.iter().map(size).collect::<Option<Vec<f64>>>() else { return pivot };
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|a, b| sizes[*a].total_cmp(&sizes[*b]));
    let rank = |column: usize| order.iter().position(|old| *old == column).unwrap_or(column);
    Pivot {
        columns: order.iter().map(|old| pivot.columns[*old].clone()).collect(),
        entries: pivot.entries.into_iter().map(|((row, column), cells)| ((row, rank(column)), cells)).collect(),
        rows: pivot.rows,
    }
}

/// Values of keys as a label: `Genie-M (duplicated)`; a cell without variant has none.
fn label(keys: &[String], values: &[String]) -> String {
    let mut label = String::new();
    for (key, value) in keys.iter().zip(values).filter(|(_, value)| !value.is_empty()) {
        let title = title(key, value);
        label = match (label.is_empty(), key.as_str()) {
            (true, _) => title,
            (false, "variant") => format!("{label} ({title})"),
            (false, _) => format!("{label}, {title}"),
        };
    }
    if label.is_empty() && !keys.is_empty() { "no variant".to_string() } else { label }
}

/// Values of an axis: one key is its title, so that only values stand at the ticks.
fn ticks(spec: &FigureSpec, pivot: &Pivot) -> (String, Vec<String>) {
    match &spec.x[..] {
        [key] if !matches!(key.as_str(), "arch" | "method" | "variant" | "bits" | "dataset") => {
            (key.replace(['.', '-'], " "), pivot.columns.iter().map(|values| values.concat()).collect())
        }
        keys => (String::new(), pivot.columns.iter().map(|values| label(keys, values)).collect()),
    }
}

fn spread(pivot: &Pivot, at: At, metric: Metric) -> Option<Spread> {
    Some(pivot.entries.get(&at)?.spread(metric)?.scaled(metric.scale()))
}

fn series_names(spec: &FigureSpec, pivot: &Pivot) -> Vec<String> {
    pivot.rows.iter().map(|values| label(&spec.series, values)).collect()
}

fn lines(spec: &FigureSpec, pivot: &Pivot) -> Lines {
    let (x_title, x) = ticks(spec, pivot);
    let columns = pivot.columns.len();
    let points = |row: usize| (0..columns).map(|column| spread(pivot, (row, column), spec.y)).collect();
    // One line for full precision where there is one network.
    let mut precisions: Vec<f64> =
        done(pivot).iter().filter_map(|run| run.record.metrics.as_ref()).map(|m| 100.0 * m.fp_test_top1).collect();
    precisions.dedup();
    let reference = match &precisions[..] {
        [fp] if spec.y == Metric::TEST => Some(*fp),
        _ => None,
    };
    let points = (0..pivot.rows.len()).map(points).collect();
    Lines {
        panels: vec![LinePanel { title: String::new(), x_title, x, points, reference }],
        series: series_names(spec, pivot),
        y_title: spec.y.title().to_string(),
        reference_title: reference.map(|_| "full precision"),
    }
}

fn bars(spec: &FigureSpec, pivot: &Pivot) -> Bars {
    let digits = if spec.y.fact().unit == Unit::Fraction { 2 } else { 1 };
    let bar = |at: At| {
        let Spread { mean, std } = spread(pivot, at, spec.y)?;
        let text = match std {
            Some(std) => format!("{mean:.digits$} ± {std:.digits$}"),
            None => format!("{mean:.digits$}"),
        };
        let std = std.unwrap_or(0.0);
        Some(Bar { value: mean, low: mean - std, high: mean + std, text })
    };
    let rows = pivot.rows.len();
    Bars {
        names: pivot.columns.iter().map(|values| label(&spec.x, values)).collect(),
        series: series_names(spec, pivot),
        bars: (0..pivot.columns.len()).map(|column| (0..rows).map(|row| bar((row, column))).collect()).collect(),
        title: spec.y.title().to_string(),
        from_zero: spec.y == Metric::GAP || spec.y.fact().unit != Unit::Fraction,
    }
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

fn ablation_bars(ablation: &Ablation) -> Bars {
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

fn ablation_frame(ablation: &Ablation) -> Result<DataFrame> {
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

/// Per series all its finished configurations, each a point.
fn cost(spec: &FigureSpec, pivot: &Pivot) -> Scatter {
    let points = pivot.entries.iter().filter_map(|((row, _), cells)| {
        Some((*row, cells.spread(Metric::WALL)?, cells.spread(spec.y)?.scaled(spec.y.scale())))
    });
    Scatter {
        series: series_names(spec, pivot),
        points: points.collect(),
        x_title: Metric::WALL.title().to_string(),
        y_title: spec.y.title().to_string(),
    }
}

/// The keys of each entry, then what `of` gives.
fn keyed(spec: &FigureSpec, pivot: &Pivot, rest: Vec<Column>) -> Result<DataFrame> {
    let series = spec.series.iter().enumerate().map(|(index, key)| {
        let values: Vec<&str> = pivot.entries.keys().map(|(row, _)| pivot.rows[*row][index].as_str()).collect();
        Column::new(key.as_str().into(), values)
    });
    let x = spec.x.iter().enumerate().map(|(index, key)| {
        let values: Vec<&str> =
            pivot.entries.keys().map(|(_, column)| pivot.columns[*column][index].as_str()).collect();
        Column::new(key.as_str().into(), values)
    });
    let columns = series.chain(x).chain(rest).collect();
    DataFrame::new(pivot.entries.len(), columns).map_err(frame::failed)
}

fn number(name: &str, pivot: &Pivot, of: impl Fn(&Cells) -> Option<f64>) -> Column {
    Column::new(name.into(), pivot.entries.values().map(of).collect::<Vec<_>>())
}

fn entries_frame(spec: &FigureSpec, pivot: &Pivot) -> Result<DataFrame> {
    let rest = vec![
        Column::new("metric".into(), vec![spec.y.name(); pivot.entries.len()]),
        Column::new("n".into(), pivot.entries.values().map(|cells| cells.done.len() as u64).collect::<Vec<_>>()),
        number("mean", pivot, |cells| Some(cells.spread(spec.y)?.mean)),
        number("std", pivot, |cells| cells.spread(spec.y)?.std),
    ];
    keyed(spec, pivot, rest)
}

fn cost_frame(spec: &FigureSpec, pivot: &Pivot) -> Result<DataFrame> {
    let rest = vec![
        number("wall_s_mean", pivot, |cells| Some(cells.spread(Metric::WALL)?.mean)),
        number("wall_s_std", pivot, |cells| cells.spread(Metric::WALL)?.std),
        Column::new("metric".into(), vec![spec.y.name(); pivot.entries.len()]),
        Column::new("n".into(), pivot.entries.values().map(|cells| cells.done.len() as u64).collect::<Vec<_>>()),
        number("mean", pivot, |cells| Some(cells.spread(spec.y)?.mean)),
        number("std", pivot, |cells| cells.spread(spec.y)?.std),
    ];
    keyed(spec, pivot, rest)
}

/// Run ids beside the runs of the figure.
fn losses(spec: &FigureSpec, pivot: &Pivot, unreadable: &mut Vec<Unreadable>) -> (Losses, Vec<String>) {
    let (mut runs, mut ids) = (Vec::new(), Vec::new());
    for ((row, _), cells) in &pivot.entries {
        for run in &cells.done {
            let Some(traces) = readable(read_traces(&run.folder), run, unreadable) else { continue };
            runs.push((*row, traces.into_iter().filter(is_reconstruction).collect()));
            ids.push(run.record.run_id.clone());
        }
    }
    (Losses { series: series_names(spec, pivot), runs }, ids)
}
