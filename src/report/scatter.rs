//! Points with their spread in both directions: accuracy against wall time.

use super::accuracy::Spread;
use super::canvas::{Drawing, GRID_LINE, Legend, Panel, TEXT, WIDTH, colour, failed, marker, tick, write};
use crate::error::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

const HEIGHT: u32 = 560;

/// A figure of points.
pub struct Scatter {
    pub series: Vec<String>,
    /// Series, x (positive, on a logarithmic axis) and y.
    pub points: Vec<(usize, Spread, Spread)>,
    pub x_title: String,
    pub y_title: String,
}

impl Scatter {
    fn legend(&self) -> Legend<'_> {
        Legend { series: &self.series, dashed: None, width: WIDTH }
    }
}

fn ends(spread: &Spread) -> (f64, f64) {
    let std = spread.std.unwrap_or(0.0);
    (spread.mean - std, spread.mean + std)
}

impl Drawing for Scatter {
    fn size(&self) -> (u32, u32) {
        (WIDTH, HEIGHT + self.legend().height())
    }

    fn draw<D: DrawingBackend>(&self, area: &Panel<D>) -> Result<()>
    where
        D::ErrorType: 'static,
    {
        let points: Vec<_> = self.points.iter().filter(|(_, x, _)| x.mean > 0.0).collect();
        if points.is_empty() {
            return write(area, "no finished runs", (40, 60), (HPos::Left, VPos::Top));
        }
        let (plot, legend) = area.split_vertically(HEIGHT);
        let fold = |(low, high): (f64, f64), end: f64| (low.min(end), high.max(end));
        // A spread larger than the mean has no end on a logarithmic axis: a quarter of the mean stands for it.
        let across = |x: &Spread| (ends(x).0.max(x.mean / 4.0), ends(x).1);
        let xs = points.iter().flat_map(|(_, x, _)| [across(x).0, across(x).1]).fold((f64::MAX, f64::MIN), fold);
        let ys = points.iter().flat_map(|(_, _, y)| [ends(y).0, ends(y).1]).fold((f64::MAX, f64::MIN), fold);
        let margin = (0.06 * (ys.1 - ys.0)).max(0.2);
        let (low, high) = (ys.0 - margin, ys.1 + margin);
        let (left, right) = (xs.0 / 1.2, xs.1 * 1.2);
        let mut chart = ChartBuilder::on(&plot)
            .margin(14)
            .margin_right(24)
            .x_label_area_size(84)
            .y_label_area_size(100)
            .build_cartesian_2d((left..right).log_scale(), low..high)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(6)
            .y_labels(8)
            .x_label_formatter(&|x| if *x < 10.0 { format!("{x:.1}") } else { format!("{x:.0}") })
            .y_label_formatter(&|y| tick(*y, low, high))
            .x_desc(&self.x_title)
            .y_desc(&self.y_title)
            .label_style(("sans-serif", TEXT))
            .light_line_style(WHITE)
            .bold_line_style(GRID_LINE)
            .draw()
            .map_err(failed)?;
        for (index, x, y) in points {
            let style = colour(*index).stroke_width(2);
            let (below, above) = ends(y);
            if above > below {
                let bar = ErrorBar::new_vertical(x.mean, below, y.mean, above, style, 10);
                chart.draw_series([bar]).map_err(failed)?;
            }
            let (fast, slow) = across(x);
            if slow > fast {
                let bar = ErrorBar::new_horizontal(y.mean, fast, x.mean, slow, style, 10);
                chart.draw_series([bar]).map_err(failed)?;
            }
            let at = chart.backend_coord(&(x.mean, y.mean));
            marker(&plot, *index, at)?;
        }
        self.legend().draw(&legend)
    }
}
