//! Figures that a grid declares, each as SVG, PNG and the data that it shows.

use super::ablation;
use super::accuracy::Spread;
use super::bars::{Bar, Bars};
use super::canvas::{Drawing, png, svg_of_pixels};
use super::figure::{Figure, digits, done, entries_frame, finish, keyed, label, number, series_names, spread, ticks};
use super::figure_frames::{losses_frame, pictures_frame, terms_frame};
use super::frame;
use super::heatmap;
use super::lines::{LinePanel, Lines};
use super::losses::{Losses, is_reconstruction};
use super::pivot::{At, Pivot, pivot};
use super::scatter::Scatter;
use super::transform::{Part, Transforms, Unreadable, read_runs, readable};
use crate::error::{Error, Result};
use crate::experiment::facts::Unit;
use crate::experiment::{FigureSpec, Metric};
use crate::store::Planned;
use crate::store::{Stored, read_traces};
use polars::prelude::{Column, DataFrame};
use ptq::recipe::Bits;

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

/// Draws what `spec` declares of the runs in its pivot; what is stored beside records and cannot be read is added to the last.
type Draw = fn(&FigureSpec, &Pivot, &mut Vec<Unreadable>) -> Result<Figure>;

/// How each of [`FIGURE_KINDS`](crate::experiment::FIGURE_KINDS) is drawn.
const DRAWN: &[(&str, Draw)] = &[
    ("lines", |spec, pivot, _| finish(spec, &lines(spec, pivot), entries_frame(spec, pivot)?)),
    ("bars", |spec, pivot, _| finish(spec, &bars(spec, pivot), entries_frame(spec, pivot)?)),
    ("heatmap", |spec, pivot, _| heatmap::draw(spec, pivot)),
    ("ablation", |spec, pivot, _| ablation::draw(spec, pivot)),
    ("cost", |spec, pivot, _| finish(spec, &cost(spec, pivot), cost_frame(spec, pivot)?)),
    ("losses", |spec, pivot, unreadable| {
        let (losses, runs) = losses(spec, pivot, unreadable);
        finish(spec, &losses, losses_frame(&losses, &runs)?)
    }),
    ("meta-terms", |spec, pivot, unreadable| {
        let runs = read_runs(&done(pivot), unreadable);
        let parts = &[Part::Losses, Part::Norms];
        finish(spec, &Transforms { runs: &runs, parts }, terms_frame(&runs)?)
    }),
    ("images", |spec, pivot, unreadable| {
        let runs = read_runs(&done(pivot), unreadable);
        let drawing = Transforms { runs: &runs, parts: &[Part::Pictures] };
        let png = png(&drawing)?;
        let (svg, csv) = (svg_of_pixels(drawing.size(), &png), frame::to_csv(pictures_frame(&runs)?)?);
        Ok(Figure { name: spec.name.clone(), caption: spec.caption.clone(), svg, png, csv })
    }),
];

fn figure(spec: &FigureSpec, plan: &[Planned], stored: &[Stored], unreadable: &mut Vec<Unreadable>) -> Result<Figure> {
    let pivot = ordered(spec, pivot((&spec.series, &spec.x), spec.filter.as_ref(), plan, stored));
    match DRAWN.iter().find(|(kind, _)| *kind == spec.kind.name) {
        Some((_, draw)) => draw(spec, &pivot, unreadable),
        None => Err(Error::Report(format!("figure {}: nothing draws kind {}", spec.name, spec.kind.name))),
    }
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
    let digits = digits(spec.y);
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

#[cfg(test)]
mod tests {
    use super::DRAWN;
    use crate::experiment::FIGURE_KINDS;

    #[test]
    fn every_kind_is_drawn() {
        let declared: Vec<&str> = FIGURE_KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(declared, DRAWN.iter().map(|(kind, _)| *kind).collect::<Vec<_>>());
    }
}
