//! Accuracy against bit widths, one panel per block.

use super::accuracy::{Block, Row, Statistics};
use crate::arch;
use crate::error::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::sync::OnceLock;

/// Pixels; a panel is read at 8 cm width.
const PANEL: (u32, u32) = (760, 560);
const LEGEND: u32 = 64;
pub(super) const TEXT: i32 = 26;
/// Okabe and Ito's palette, told apart by readers with colour vision deficiencies.
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

type Panel<'a, D> = DrawingArea<D, Shift>;

/// SVG text and PNG bytes of the same figure.
pub fn draw(blocks: &[Block]) -> Result<(String, Vec<u8>)> {
    register_font()?;
    let size = (PANEL.0 * blocks.len().max(1) as u32, PANEL.1 + LEGEND * legend_rows(blocks));
    let mut svg = String::new();
    figure(SVGBackend::with_string(&mut svg, size).into_drawing_area(), blocks)?;
    Ok((svg, png(size, |area| figure(area.clone(), blocks))?))
}

/// The bytes of a PNG of `size` pixels that `draw` draws; plotters only writes it to files.
pub(super) fn png(size: (u32, u32), draw: impl Fn(&Panel<BitMapBackend>) -> Result<()>) -> Result<Vec<u8>> {
    register_font()?;
    let folder = tempfile::tempdir().map_err(Error::io("cannot make a folder in", &std::env::temp_dir()))?;
    let path = folder.path().join("figure.png");
    draw(&BitMapBackend::new(&path, size).into_drawing_area())?;
    std::fs::read(&path).map_err(Error::io("cannot read", &path))
}

/// plotters looks for no system fonts in this build: it draws with the one compiled in.
fn register_font() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let font = include_bytes!("../../assets/fonts/DejaVuSans.ttf");
    let registered =
        REGISTERED.get_or_init(|| plotters::style::register_font("sans-serif", FontStyle::Normal, font).is_ok());
    registered.then_some(()).ok_or_else(|| Error::Report("the embedded font cannot be used".to_string()))
}

pub(super) fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
    Error::Report(format!("cannot draw: {error}"))
}

/// Every method in any block, once: its position is its colour and marker.
fn series(blocks: &[Block]) -> Vec<String> {
    let mut titles: Vec<String> = Vec::new();
    for row in blocks.iter().flat_map(|block| &block.rows) {
        if !titles.contains(&row.title()) {
            titles.push(row.title());
        }
    }
    titles
}

/// Legend entries per row, so that the longest name fits.
fn per_row(titles: &[String], panels: usize) -> usize {
    let longest = titles.iter().map(|title| title.chars().count()).max().unwrap_or(0).max("full precision".len());
    // Marker and gaps, then about half of the text's height per letter.
    let entry = 44 + longest * TEXT as usize * 53 / 100;
    (PANEL.0 as usize * panels.max(1) / entry).clamp(1, 4 * panels.max(1))
}

fn legend_rows(blocks: &[Block]) -> u32 {
    let titles = series(blocks);
    (titles.len() + 1).div_ceil(per_row(&titles, blocks.len())) as u32
}

fn figure<D: DrawingBackend>(area: Panel<D>, blocks: &[Block]) -> Result<()>
where
    D::ErrorType: 'static,
{
    area.fill(&WHITE).map_err(failed)?;
    let (panels, legend) = area.split_vertically(PANEL.1);
    if !blocks.iter().any(|block| finished(block).next().is_some()) {
        let text = Text::new("no finished runs", (40, 60), ("sans-serif", TEXT).into_font());
        return area.draw(&text).and_then(|()| area.present()).map_err(failed);
    }
    let titles = series(blocks);
    for (panel, block) in panels.split_evenly((1, blocks.len())).iter().zip(blocks) {
        draw_panel(panel, block, &titles)?;
    }
    draw_legend(&legend, &titles, per_row(&titles, blocks.len()))?;
    area.present().map_err(failed)
}

fn finished(block: &Block) -> impl Iterator<Item = &Statistics> {
    block.rows.iter().flat_map(|row| &row.entries).filter_map(|entry| entry.statistics.as_ref())
}

/// Lower and upper end of the y axis, in percent: all points with their error bars, and the full-precision line.
fn y_range(block: &Block) -> (f64, f64) {
    let ends = finished(block).flat_map(|statistics| {
        let (mean, std) = (100.0 * statistics.test.mean, 100.0 * statistics.test.std.unwrap_or(0.0));
        [mean - std, mean + std]
    });
    let (low, high) = ends
        .chain(block.fp_test_top1.map(|fp| 100.0 * fp))
        .fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
    if low > high {
        // Nothing finished and nothing to compare with: plotters never ends on an empty range.
        return (0.0, 100.0);
    }
    let margin = (0.06 * (high - low)).max(0.2);
    ((low - margin).max(0.0), (high + margin).min(100.5))
}

fn draw_panel<D: DrawingBackend>(panel: &Panel<D>, block: &Block, titles: &[String]) -> Result<()>
where
    D::ErrorType: 'static,
{
    let (low, high) = y_range(block);
    let title = arch::find(&block.arch).map_or(block.arch.as_str(), |arch| arch.title);
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", TEXT + 4))
        .margin(14)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(92)
        .build_cartesian_2d(-0.5..block.bits.len() as f64 - 0.5, low..high)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(8)
        .y_label_formatter(&|y| if high - low < 4.0 { format!("{y:.1}") } else { format!("{y:.0}") })
        .y_desc("test top-1 (%)")
        .label_style(("sans-serif", TEXT))
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .draw()
        .map_err(failed)?;
    // The axis is categorical: its labels are ours, below the drawing area.
    let (width, bottom) =
        (chart.plotting_area().get_x_axis_pixel_range(), chart.plotting_area().get_pixel_range().1.end);
    let (_, panel_top) = panel.get_base_pixel();
    let (panel_left, _) = panel.get_base_pixel();
    for (index, bits) in block.bits.iter().enumerate() {
        let step = f64::from(width.end - width.start) / block.bits.len() as f64;
        let centre = f64::from(width.start) + step * (index as f64 + 0.5);
        let style = TextStyle::from(("sans-serif", TEXT).into_font()).pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Center,
            plotters::style::text_anchor::VPos::Top,
        ));
        panel
            .draw(&Text::new(bits.to_string(), (centre as i32 - panel_left, bottom - panel_top + 10), style))
            .map_err(failed)?;
    }
    if let Some(fp) = block.fp_test_top1 {
        let line = [(-0.5, 100.0 * fp), (block.bits.len() as f64 - 0.5, 100.0 * fp)];
        chart.draw_series(DashedLineSeries::new(line, 10, 8, BLACK.stroke_width(2))).map_err(failed)?;
    }
    for row in &block.rows {
        let index = titles.iter().position(|title| *title == row.title()).unwrap_or(0);
        // Methods side by side within a bit width, so that error bars do not cover each other.
        let shift = 0.07 * (index as f64 - (titles.len() - 1) as f64 / 2.0);
        let points = points(row, shift);
        let colour = COLOURS[index % COLOURS.len()];
        let line = points.iter().map(|(x, y, _)| (*x, *y));
        chart.draw_series(LineSeries::new(line, colour.mix(0.45).stroke_width(2))).map_err(failed)?;
        let bars = points.iter().filter(|(.., std)| *std > 0.0);
        let bars = bars.map(|&(x, y, std)| ErrorBar::new_vertical(x, y - std, y, y + std, colour.stroke_width(2), 10));
        chart.draw_series(bars).map_err(failed)?;
        for &(x, y, _) in &points {
            let (x, y) = chart.backend_coord(&(x, y));
            marker(panel, index, (x - panel_left, y - panel_top))?;
        }
    }
    Ok(())
}

/// Position, mean and standard deviation, in percent, of each finished entry.
fn points(row: &Row, shift: f64) -> Vec<(f64, f64, f64)> {
    let entries = row.entries.iter().enumerate();
    entries
        .filter_map(|(index, entry)| {
            let test = entry.statistics.as_ref()?.test;
            Some((index as f64 + shift, 100.0 * test.mean, 100.0 * test.std.unwrap_or(0.0)))
        })
        .collect()
}

/// The marker of series `index`, centred at pixel `(x, y)` of `area`: shape and colour both tell it.
fn marker<D: DrawingBackend>(area: &Panel<D>, index: usize, (x, y): (i32, i32)) -> Result<()>
where
    D::ErrorType: 'static,
{
    let style = COLOURS[index % COLOURS.len()].filled();
    let r = 8;
    match index % 5 {
        0 => area.draw(&Circle::new((x, y), r, style)),
        1 => area.draw(&Rectangle::new([(x - r + 1, y - r + 1), (x + r - 1, y + r - 1)], style)),
        2 => area.draw(&Polygon::new(vec![(x, y - r - 1), (x + r + 1, y + r), (x - r - 1, y + r)], style)),
        3 => area.draw(&Polygon::new(vec![(x, y - r - 2), (x + r + 2, y), (x, y + r + 2), (x - r - 2, y)], style)),
        _ => area.draw(&Polygon::new(vec![(x, y + r + 1), (x + r + 1, y - r), (x - r - 1, y - r)], style)),
    }
    .map_err(failed)
}

fn draw_legend<D: DrawingBackend>(legend: &Panel<D>, titles: &[String], per_row: usize) -> Result<()>
where
    D::ErrorType: 'static,
{
    let (width, _) = legend.dim_in_pixel();
    let step = (width as usize / per_row.min(titles.len() + 1)) as i32;
    let names = titles.iter().map(String::as_str).chain(["full precision"]);
    for (index, name) in names.enumerate() {
        let x = 30 + step * (index % per_row) as i32;
        let y = 26 + LEGEND as i32 * (index / per_row) as i32;
        if index < titles.len() {
            marker(legend, index, (x, y))?;
        } else {
            for dash in [(x - 14, x - 3), (x + 3, x + 14)] {
                let line = PathElement::new(vec![(dash.0, y), (dash.1, y)], BLACK.stroke_width(2));
                legend.draw(&line).map_err(failed)?;
            }
        }
        let text = Text::new(name.to_string(), (x + 22, y - TEXT / 3), ("sans-serif", TEXT).into_font());
        legend.draw(&text).map_err(failed)?;
    }
    Ok(())
}
