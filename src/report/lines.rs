//! Line charts over categories, one panel beside the other: accuracy against bits, or against the calibration images.

use super::accuracy::Spread;
use super::canvas::{Drawing, GRID_LINE, Legend, Panel, TEXT, WIDTH, colour, failed, marker, tick, write};
use crate::error::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

const HEIGHT: u32 = 560;

/// A figure of line charts that share their series.
pub struct Lines {
    pub panels: Vec<LinePanel>,
    /// Names of the series, in every panel at the same index.
    pub series: Vec<String>,
    pub y_title: String,
    /// What the dashed lines are.
    pub reference_title: Option<&'static str>,
}

/// One chart, in the unit of its axis.
pub struct LinePanel {
    pub title: String,
    /// What is varied; empty if its values say so.
    pub x_title: String,
    pub x: Vec<String>,
    /// Per series, per x.
    pub points: Vec<Vec<Option<Spread>>>,
    pub reference: Option<f64>,
}

impl LinePanel {
    fn finished(&self) -> impl Iterator<Item = &Spread> {
        self.points.iter().flatten().flatten()
    }

    /// Lower and upper end of the y axis: all points with their error bars, and the reference.
    fn y_range(&self) -> (f64, f64) {
        let ends = self.finished().flat_map(|spread| {
            let std = spread.std.unwrap_or(0.0);
            [spread.mean - std, spread.mean + std]
        });
        let ends = ends.chain(self.reference);
        let (low, high) = ends.fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
        let margin = (0.06 * (high - low)).max(0.2);
        (low - margin, high + margin)
    }
}

impl Lines {
    fn legend(&self) -> Legend<'_> {
        Legend { series: &self.series, dashed: self.reference_title, width: self.width() }
    }

    fn width(&self) -> u32 {
        WIDTH * self.panels.len().max(1) as u32
    }
}

impl Drawing for Lines {
    fn size(&self) -> (u32, u32) {
        (self.width(), HEIGHT + self.legend().height())
    }

    fn draw<D: DrawingBackend>(&self, area: &Panel<D>) -> Result<()>
    where
        D::ErrorType: 'static,
    {
        if !self.panels.iter().any(|panel| panel.finished().next().is_some()) {
            return write(area, "no finished runs", (40, 60), (HPos::Left, VPos::Top));
        }
        let (panels, legend) = area.split_vertically(HEIGHT);
        for (area, panel) in panels.split_evenly((1, self.panels.len())).iter().zip(&self.panels) {
            // A panel of failed runs alone has no scale.
            if panel.finished().next().is_some() {
                draw_panel(area, panel, &self.y_title)?;
            }
        }
        self.legend().draw(&legend)
    }
}

fn draw_panel<D: DrawingBackend>(area: &Panel<D>, panel: &LinePanel, y_title: &str) -> Result<()>
where
    D::ErrorType: 'static,
{
    let (low, high) = panel.y_range();
    let columns = panel.x.len() as f64;
    let mut chart = ChartBuilder::on(area);
    if !panel.title.is_empty() {
        chart.caption(&panel.title, ("sans-serif", TEXT + 4));
    }
    let below = if panel.x_title.is_empty() { 44 } else { 84 };
    let mut chart = chart
        .margin(14)
        .margin_right(24)
        .x_label_area_size(below)
        .y_label_area_size(100)
        .build_cartesian_2d(-0.5..columns - 0.5, low..high)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(8)
        .y_label_formatter(&|y| tick(*y, low, high))
        .y_desc(y_title)
        .label_style(("sans-serif", TEXT))
        .light_line_style(WHITE)
        .bold_line_style(GRID_LINE)
        .draw()
        .map_err(failed)?;
    // The axis is categorical: its labels are ours, below the drawing area.
    let (left, top) = area.get_base_pixel();
    let bottom = chart.plotting_area().get_pixel_range().1.end - top;
    for (index, name) in panel.x.iter().enumerate() {
        let (x, _) = chart.backend_coord(&(index as f64, low));
        write(area, name, (x - left, bottom + 10), (HPos::Center, VPos::Top))?;
    }
    let (middle, _) = chart.backend_coord(&((columns - 1.0) / 2.0, low));
    write(area, &panel.x_title, (middle - left, bottom + 48), (HPos::Center, VPos::Top))?;
    if let Some(reference) = panel.reference {
        let line = [(-0.5, reference), (columns - 0.5, reference)];
        chart.draw_series(DashedLineSeries::new(line, 10, 8, BLACK.stroke_width(2))).map_err(failed)?;
    }
    for (index, points) in panel.points.iter().enumerate() {
        // Series side by side within a category, so that error bars do not cover each other.
        let step = (0.5 / panel.points.len() as f64).min(0.07);
        let shift = step * (index as f64 - (panel.points.len() - 1) as f64 / 2.0);
        let points: Vec<(f64, Spread)> =
            points.iter().enumerate().filter_map(|(x, spread)| Some((x as f64 + shift, (*spread)?))).collect();
        let line = points.iter().map(|(x, spread)| (*x, spread.mean));
        chart.draw_series(LineSeries::new(line, colour(index).mix(0.45).stroke_width(2))).map_err(failed)?;
        let bars = points.iter().filter_map(|(x, spread)| {
            let (low, high) = (spread.mean - spread.std?, spread.mean + spread.std?);
            Some(ErrorBar::new_vertical(*x, low, spread.mean, high, colour(index).stroke_width(2), 10))
        });
        chart.draw_series(bars).map_err(failed)?;
        for (x, spread) in &points {
            let (x, y) = chart.backend_coord(&(*x, spread.mean));
            marker(area, index, (x - left, y - top))?;
        }
    }
    Ok(())
}
