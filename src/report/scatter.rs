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

/// 1, 2 and 5 times powers of ten between two positive numbers; where those are many, the powers alone.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    const MOST: usize = 8;
    let powers = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let is_shown = |tick: &f64| (low..=high).contains(tick);
    let fine = powers.clone().flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
    let fine: Vec<f64> = fine.filter(is_shown).collect();
    if fine.len() <= MOST { fine } else { powers.map(|power| 10f64.powi(power)).filter(is_shown).collect() }
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
            .x_labels(0)
            .x_label_formatter(&|_| String::new())
            .y_labels(8)
            .y_label_formatter(&|y| tick(*y, low, high))
            .y_desc(&self.y_title)
            .label_style(("sans-serif", TEXT))
            .light_line_style(WHITE)
            .bold_line_style(GRID_LINE)
            .draw()
            .map_err(failed)?;
        // plotters would label powers of ten alone.
        let bottom = chart.plotting_area().get_pixel_range().1.end;
        for second in ticks(left, right) {
            let (x, _) = chart.backend_coord(&(second, low));
            plot.draw(&PathElement::new(vec![(x, bottom), (x, bottom + 6)], BLACK)).map_err(failed)?;
            write(&plot, &second.to_string(), (x, bottom + 10), (HPos::Center, VPos::Top))?;
        }
        let (middle, _) = chart.backend_coord(&((left * right).sqrt(), low));
        write(&plot, &self.x_title, (middle, bottom + 48), (HPos::Center, VPos::Top))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_has_more_ticks_than_powers_of_ten() {
        assert_eq!(ticks(12.0, 230.0), [20.0, 50.0, 100.0, 200.0]);
        assert_eq!(ticks(0.3, 5000.0), [1.0, 10.0, 100.0, 1000.0]);
    }
}
