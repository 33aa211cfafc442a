//! What the kinds of figures share: their formats, labels of their axes, and the numbers of their entries.

use super::accuracy::Spread;
use super::canvas::{Drawing, svg_and_png};
use super::frame;
use super::pivot::{At, Cells, Pivot, title};
use crate::error::Result;
use crate::experiment::facts::Unit;
use crate::experiment::{FigureSpec, Metric};
use crate::store::Stored;
use polars::prelude::{Column, DataFrame};

/// A figure in all its formats.
pub struct Figure {
    pub name: String,
    pub caption: String,
    pub svg: String,
    pub png: Vec<u8>,
    /// Fractions and seconds.
    pub csv: Vec<u8>,
}

/// The figure in all formats; `frame` has the numbers that it shows.
pub fn finish(spec: &FigureSpec, drawing: &impl Drawing, frame: DataFrame) -> Result<Figure> {
    let (svg, png) = svg_and_png(drawing)?;
    Ok(Figure { name: spec.name.clone(), caption: spec.caption.clone(), svg, png, csv: frame::to_csv(frame)? })
}

/// Every finished run, in the order of the figure.
pub fn done<'a>(pivot: &Pivot<'a>) -> Vec<&'a Stored> {
    pivot.entries.values().flat_map(|cells| cells.done.iter().copied()).collect()
}

/// Values of keys as a label: `Genie-M (duplicated)`; a cell without variant has none.
pub fn label(keys: &[String], values: &[String]) -> String {
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
pub fn ticks(spec: &FigureSpec, pivot: &Pivot) -> (String, Vec<String>) {
    match &spec.x[..] {
        [key] if !matches!(key.as_str(), "arch" | "method" | "variant" | "bits" | "dataset") => {
            (key.replace(['.', '-'], " "), pivot.columns.iter().map(|values| values.concat()).collect())
        }
        keys => (String::new(), pivot.columns.iter().map(|values| label(keys, values)).collect()),
    }
}

/// Digits of a mean behind the point.
pub fn digits(metric: Metric) -> usize {
    if metric.fact().unit == Unit::Fraction { 2 } else { 1 }
}

/// Mean and standard deviation of an entry, in the unit of the axis; `None` unless a run of it is finished.
pub fn spread(pivot: &Pivot, at: At, metric: Metric) -> Option<Spread> {
    Some(pivot.entries.get(&at)?.spread(metric)?.scaled(metric.scale()))
}

/// The series, as a legend has them.
pub fn series_names(spec: &FigureSpec, pivot: &Pivot) -> Vec<String> {
    pivot.rows.iter().map(|values| label(&spec.series, values)).collect()
}

/// The keys of each entry, then what `of` gives.
pub fn keyed(spec: &FigureSpec, pivot: &Pivot, rest: Vec<Column>) -> Result<DataFrame> {
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

/// What `of` gives of each entry.
pub fn number(name: &str, pivot: &Pivot, of: impl Fn(&Cells) -> Option<f64>) -> Column {
    Column::new(name.into(), pivot.entries.values().map(of).collect::<Vec<_>>())
}

/// The metric of each entry, over its runs.
pub fn entries_frame(spec: &FigureSpec, pivot: &Pivot) -> Result<DataFrame> {
    let rest = vec![
        Column::new("metric".into(), vec![spec.y.name(); pivot.entries.len()]),
        Column::new("n".into(), pivot.entries.values().map(|cells| cells.done.len() as u64).collect::<Vec<_>>()),
        number("mean", pivot, |cells| Some(cells.spread(spec.y)?.mean)),
        number("std", pivot, |cells| cells.spread(spec.y)?.std),
    ];
    keyed(spec, pivot, rest)
}
