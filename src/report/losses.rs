//! Reconstruction losses: the units from left to right, within each its iterations, a line per run.

use super::canvas::{Drawing, GRID_LINE, Legend, Panel, TEXT, WIDTH, colour, failed, segments, write};
use crate::error::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use ptq::recon::trace::UnitTrace;

const HEIGHT: u32 = 560;
/// Names of units stand upright below the axis.
const NAMES: i32 = 190;
/// More units than these are not all named.
const NAMED: usize = 24;

/// A figure of losses.
pub struct Losses {
    pub series: Vec<String>,
    /// Series and traces of each run.
    pub runs: Vec<(usize, Vec<UnitTrace>)>,
}

/// Whether a trace is of a unit's reconstruction, and not of a transform network.
pub fn is_reconstruction(trace: &UnitTrace) -> bool {
    trace.phase != "meta"
}

fn slot(trace: &UnitTrace) -> String {
    if trace.phase == "weights" { trace.unit.clone() } else { format!("{} {}", trace.unit, trace.phase) }
}

impl Losses {
    fn legend(&self) -> Legend<'_> {
        Legend { series: &self.series, dashed: None, width: WIDTH }
    }

    /// Every unit of any run, in the order of reconstruction.
    fn slots(&self) -> Vec<String> {
        let mut slots: Vec<String> = Vec::new();
        for (_, traces) in &self.runs {
            // What an earlier run lacks stands where this run has it: after its previous unit.
            let mut next = 0;
            for name in traces.iter().map(slot) {
                let position = slots.iter().position(|known| *known == name).unwrap_or_else(|| {
                    slots.insert(next, name);
                    next
                });
                next = position + 1;
            }
        }
        slots
    }
}

impl Drawing for Losses {
    fn size(&self) -> (u32, u32) {
        (WIDTH, HEIGHT + self.legend().height())
    }

    fn draw<D: DrawingBackend>(&self, area: &Panel<D>) -> Result<()>
    where
        D::ErrorType: 'static,
    {
        let slots = self.slots();
        let losses = self.runs.iter().flat_map(|(_, traces)| traces).flat_map(|trace| &trace.loss);
        let shown = losses.filter(|loss| loss.is_finite() && **loss > 0.0);
        let (low, high) = shown.fold((f64::MAX, f64::MIN), |(low, high), loss| (low.min(*loss), high.max(*loss)));
        if high < low {
            return write(area, "no traces of losses", (40, 60), (HPos::Left, VPos::Top));
        }
        let (plot, legend) = area.split_vertically(HEIGHT);
        let (low, high) = (low / 1.3, high * 1.3);
        let mut chart = ChartBuilder::on(&plot)
            .margin(14)
            .x_label_area_size(NAMES)
            .y_label_area_size(110)
            .build_cartesian_2d(0.0..slots.len() as f64, (low..high).log_scale())
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(6)
            .y_label_formatter(&|y| format!("{y:.0e}"))
            .y_desc("reconstruction loss")
            .label_style(("sans-serif", TEXT))
            .light_line_style(WHITE)
            .bold_line_style(GRID_LINE)
            .draw()
            .map_err(failed)?;
        let bottom = chart.plotting_area().get_pixel_range().1.end;
        let every = slots.len().div_ceil(NAMED);
        for (index, name) in slots.iter().enumerate() {
            let border = [(index as f64, low), (index as f64, high)];
            chart.draw_series(LineSeries::new(border, GRID_LINE)).map_err(failed)?;
            if index % every == 0 {
                let (x, _) = chart.backend_coord(&(index as f64 + 0.5, low));
                let font = ("sans-serif", TEXT - 6).into_font().transform(FontTransform::Rotate270);
                let style = TextStyle::from(font).pos(Pos::new(HPos::Right, VPos::Center));
                plot.draw(&Text::new(name.clone(), (x, bottom + 10), style)).map_err(failed)?;
            }
        }
        for (series, traces) in &self.runs {
            for trace in traces {
                let Some(position) = slots.iter().position(|known| *known == slot(trace)) else { continue };
                let last = trace.iterations.last().copied().unwrap_or(1).max(1) as f64;
                let points = trace.iterations.iter().zip(&trace.loss);
                let points: Vec<(f64, f64)> =
                    points.map(|(t, loss)| (position as f64 + *t as f64 / last, *loss)).collect();
                // Separate pieces around what cannot be drawn.
                for piece in points.split(|(_, loss)| !loss.is_finite() || *loss <= 0.0) {
                    chart.draw_series(segments(piece, colour(*series))).map_err(failed)?;
                }
            }
        }
        self.legend().draw(&legend)
    }
}
