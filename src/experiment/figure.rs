//! Figures that a grid declares.
//!
//! ```toml
//! [[figure]]
//! name = "overfit"                  # goes to results/<grid>/figures/overfit.{svg,png,csv}
//! kind = "bars"                     # one of [`FIGURE_KINDS`]
//! caption = "Over-fitting gap."     # optional
//! x = ["method", "variant"]         # keys of cells: one place on the axis per combination met
//! y = "gap"                         # optional: a name in [`FACTS`](super::facts::FACTS): test, calib, gap, wall, ...
//! series = ["bits"]                 # keys of cells: one colour per combination met
//! filter = "setting=qdrop"          # optional: as on the command line
//! ```

use super::declaration::Declarations;
use super::filter::Filter;
use super::table::Metric;
use crate::error::Result;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned;

/// What a figure shows; how it is drawn stands in `report::figures`.
#[derive(Debug)]
pub struct FigureKind {
    /// As written in a grid.
    pub name: &'static str,
    /// Whether it reads `x`, `y` and `series`; one that reads `x` needs it.
    reads: [bool; 3],
    /// The field whose keys must tell configurations apart, where runs of one configuration are drawn as one.
    apart: Option<&'static str>,
}

/// Every known kind.
pub const FIGURE_KINDS: &[FigureKind] = &[
    // `y` over `x`, a line per series, mean and standard deviation over seeds: accuracy against bits, or against the number
    // of calibration images.
    FigureKind { name: "lines", reads: [true, true, true], apart: Some("series") },
    // `y` of every `x` and series, mean and standard deviation over seeds: the over-fitting gap.
    FigureKind { name: "bars", reads: [true, true, true], apart: Some("series") },
    // The mean of `y` of every `x` and series as a coloured table: accuracy by bits and calibration images.
    FigureKind { name: "heatmap", reads: [true, true, true], apart: Some("series") },
    // How far the test accuracy of every other `x` is from that of the first, with the paired 95 % interval.
    FigureKind { name: "ablation", reads: [true, false, false], apart: Some("x") },
    // `y` against wall time, a point per configuration: mean and standard deviation of both.
    FigureKind { name: "cost", reads: [false, true, true], apart: Some("series") },
    // Reconstruction loss of every unit over its iterations, a line per run, coloured by series.
    FigureKind { name: "losses", reads: [false, false, true], apart: None },
    // Terms of the meta-loss and the norms of their gradients over the meta iterations, per run.
    FigureKind { name: "meta-terms", reads: [false, false, false], apart: None },
    // Images beside their transforms, per run.
    FigureKind { name: "images", reads: [false, false, false], apart: None },
];

impl<'de> Deserialize<'de> for &'static FigureKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        FIGURE_KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
            let known: Vec<String> = FIGURE_KINDS.iter().map(|kind| format!("`{}`", kind.name)).collect();
            serde::de::Error::custom(format!("unknown kind of figure `{name}`, expected one of {}", known.join(", ")))
        })
    }
}

/// A declared figure, checked.
#[derive(Clone, Debug)]
pub struct FigureSpec {
    pub name: String,
    pub caption: String,
    pub kind: &'static FigureKind,
    pub x: Vec<String>,
    pub y: Metric,
    pub series: Vec<String>,
    pub filter: Option<Filter>,
}

/// A declared figure, as written.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WireFigure {
    name: Spanned<String>,
    kind: Spanned<&'static FigureKind>,
    #[serde(default)]
    caption: String,
    x: Option<Spanned<Vec<Spanned<String>>>>,
    y: Option<Spanned<Metric>>,
    series: Option<Spanned<Vec<Spanned<String>>>>,
    filter: Option<Spanned<String>>,
}

/// Checks the figures against the cells of their grid.
///
/// Errors: as for tables; and fields that the kind does not read or lacks.
pub(super) fn check_figures(grid: &Declarations, figures: &[WireFigure]) -> Result<Vec<FigureSpec>> {
    let mut names = BTreeSet::new();
    let mut checked = Vec::new();
    for figure in figures {
        grid.name("figure", &figure.name, &mut names)?;
        check_fields(grid, figure)?;
        let (x, series) = (figure.x.as_ref(), figure.series.as_ref());
        let both = [x, series].into_iter().flatten().flat_map(|keys| keys.get_ref());
        grid.keys(both.map(|key| (key.get_ref().as_str(), key.span())))?;
        let filter = grid.filter(figure.filter.as_ref())?;
        let keys = |keys: Option<&Spanned<Vec<Spanned<String>>>>| -> Vec<String> {
            keys.into_iter().flat_map(|keys| keys.get_ref()).map(|key| key.get_ref().clone()).collect()
        };
        let spec = FigureSpec {
            name: figure.name.get_ref().clone(),
            caption: figure.caption.clone(),
            kind: figure.kind.get_ref(),
            x: keys(x),
            y: figure.y.as_ref().map(|metric| *metric.get_ref()).unwrap_or_default(),
            series: keys(series),
            filter,
        };
        if let Some(place) = spec.kind.apart {
            let keys: Vec<&str> = spec.x.iter().chain(&spec.series).map(String::as_str).collect();
            let span = series.or(x).map_or(figure.kind.span(), |keys| keys.span());
            grid.refuse_mixtures(&format!("figure {}", spec.name), &keys, spec.filter.as_ref(), (place, span))?;
        }
        checked.push(spec);
    }
    Ok(checked)
}

fn check_fields(grid: &Declarations, figure: &WireFigure) -> Result<()> {
    let kind = figure.kind.get_ref();
    let spans: [Option<Range<usize>>; 3] = [
        figure.x.as_ref().map(Spanned::span),
        figure.y.as_ref().map(Spanned::span),
        figure.series.as_ref().map(Spanned::span),
    ];
    for ((field, reads), span) in ["x", "y", "series"].into_iter().zip(kind.reads).zip(spans) {
        if let (false, Some(span)) = (reads, span) {
            let message = format!("a figure of kind {} does not read {field}", kind.name);
            return Err(grid.source.error(message, Some(span), "here").help("drop it, or choose another kind").into());
        }
    }
    let has_x = figure.x.as_ref().is_some_and(|keys| !keys.get_ref().is_empty());
    if kind.reads[0] && !has_x {
        let message = format!("a figure of kind {} has no x", kind.name);
        let error = grid.source.error(message, Some(figure.kind.span()), "it needs at least one key of a cell");
        return Err(error.help("for example x = [\"bits\"]").into());
    }
    Ok(())
}
