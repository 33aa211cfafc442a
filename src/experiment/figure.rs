//! Figures that a grid declares.
//!
//! ```toml
//! [[figure]]
//! name = "overfit"                  # goes to results/<grid>/figures/overfit.{svg,png,csv}
//! kind = "bars"                     # lines, bars, ablation, cost, losses, meta-terms or images: [`FigureKind`]
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
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned;

/// What a figure shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FigureKind {
    /// `y` over `x`, a line per series, mean and standard deviation over seeds: accuracy against bits, or against the number
    /// of calibration images.
    Lines,
    /// `y` of every `x` and series, mean and standard deviation over seeds: the over-fitting gap.
    Bars,
    /// How far the test accuracy of every other `x` is from that of the first, with the paired 95 % interval.
    Ablation,
    /// `y` against wall time, a point per configuration: mean and standard deviation of both.
    Cost,
    /// Reconstruction loss of every unit over its iterations, a line per run, coloured by series.
    Losses,
    /// Terms of the meta-loss and the norms of their gradients over the meta iterations, per run.
    MetaTerms,
    /// Images beside their transforms, per run.
    Images,
}

impl FigureKind {
    fn name(self) -> &'static str {
        match self {
            FigureKind::Lines => "lines",
            FigureKind::Bars => "bars",
            FigureKind::Ablation => "ablation",
            FigureKind::Cost => "cost",
            FigureKind::Losses => "losses",
            FigureKind::MetaTerms => "meta-terms",
            FigureKind::Images => "images",
        }
    }

    /// Whether the kind reads `x`, `y` and `series`; one that reads `x` needs it.
    fn reads(self) -> [bool; 3] {
        match self {
            FigureKind::Lines | FigureKind::Bars => [true, true, true],
            FigureKind::Ablation => [true, false, false],
            FigureKind::Cost => [false, true, true],
            FigureKind::Losses => [false, false, true],
            FigureKind::MetaTerms | FigureKind::Images => [false, false, false],
        }
    }
}

/// A declared figure, checked.
#[derive(Clone, Debug)]
pub struct FigureSpec {
    pub name: String,
    pub caption: String,
    pub kind: FigureKind,
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
    kind: Spanned<FigureKind>,
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
            kind: *figure.kind.get_ref(),
            x: keys(x),
            y: figure.y.as_ref().map(|metric| *metric.get_ref()).unwrap_or_default(),
            series: keys(series),
            filter,
        };
        // The others draw every run by itself.
        if matches!(spec.kind, FigureKind::Lines | FigureKind::Bars | FigureKind::Ablation | FigureKind::Cost) {
            let keys: Vec<&str> = spec.x.iter().chain(&spec.series).map(String::as_str).collect();
            let place = if spec.kind == FigureKind::Ablation { "x" } else { "series" };
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
    for ((field, reads), span) in ["x", "y", "series"].into_iter().zip(kind.reads()).zip(spans) {
        if let (false, Some(span)) = (reads, span) {
            let message = format!("a figure of kind {} does not read {field}", kind.name());
            return Err(grid.source.error(message, Some(span), "here").help("drop it, or choose another kind").into());
        }
    }
    let has_x = figure.x.as_ref().is_some_and(|keys| !keys.get_ref().is_empty());
    if kind.reads()[0] && !has_x {
        let message = format!("a figure of kind {} has no x", kind.name());
        let error = grid.source.error(message, Some(figure.kind.span()), "it needs at least one key of a cell");
        return Err(error.help("for example x = [\"bits\"]").into());
    }
    Ok(())
}
