//! Bars from left to right, names on the left and numbers on the right: over-fitting gaps, ablations, accuracies.

use super::canvas::{Drawing, GRID_LINE, Legend, Panel, TEXT, WIDTH, colour, failed, marker, text_width, tick, write};
use crate::error::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

/// Height of one bar with the gap to the next, and of the gap between names.
const BAR: i32 = 38;
const GAP: i32 = 14;
/// Tick labels and title of the axis, and the margin above.
const BELOW: i32 = 92;
const ABOVE: i32 = 16;

/// A figure of bars.
pub struct Bars {
    pub names: Vec<String>,
    /// Colours; a single one without a name needs no legend.
    pub series: Vec<String>,
    /// Per name, per series.
    pub bars: Vec<Vec<Option<Bar>>>,
    pub title: String,
    /// Bars begin at zero; otherwise there are points, since the length of a bar would mean nothing.
    pub from_zero: bool,
}

/// A value with its interval, in the unit of the axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    /// As written beside it.
    pub text: String,
}

impl Bars {
    fn legend(&self) -> Legend<'_> {
        let series = if self.series.len() > 1 { self.series.as_slice() } else { &[] };
        Legend { series, dashed: None, width: WIDTH }
    }

    fn plot_height(&self) -> i32 {
        self.names.len() as i32 * (self.series.len().max(1) as i32 * BAR + GAP)
    }

    fn present(&self) -> impl Iterator<Item = &Bar> {
        self.bars.iter().flatten().flatten()
    }

    fn range(&self) -> (f64, f64) {
        let ends = self.present().flat_map(|bar| [bar.low, bar.high, bar.value]);
        let zero = self.from_zero.then_some(0.0);
        let (low, high) = ends.chain(zero).fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
        let margin = (0.05 * (high - low)).max(0.02);
        let is_end = |end: f64| self.from_zero && end == 0.0;
        (if is_end(low) { 0.0 } else { low - margin }, if is_end(high) { 0.0 } else { high + margin })
    }
}

impl Drawing for Bars {
    fn size(&self) -> (u32, u32) {
        (WIDTH, (ABOVE + self.plot_height() + BELOW) as u32 + self.legend().height())
    }

    fn draw<D: DrawingBackend>(&self, area: &Panel<D>) -> Result<()>
    where
        D::ErrorType: 'static,
    {
        if self.present().next().is_none() {
            return write(area, "no finished runs", (40, 40), (HPos::Left, VPos::Top));
        }
        let (plot, legend) = area.split_vertically(ABOVE + self.plot_height() + BELOW);
        let longest = |texts: &mut dyn Iterator<Item = &str>| texts.map(text_width).max().unwrap_or(0);
        // Long names may take half the figure; what is longer runs into its edge.
        let left = (longest(&mut self.names.iter().map(String::as_str)) + 20).min(WIDTH as i32 / 2);
        let right = longest(&mut self.present().map(|bar| bar.text.as_str())) + 24;
        let (low, high) = self.range();
        let rows = self.names.len() as f64;
        let mut chart = ChartBuilder::on(&plot)
            .margin_top(ABOVE)
            .margin_right(right)
            .x_label_area_size(BELOW)
            .y_label_area_size(left)
            .build_cartesian_2d(low..high, rows..0.0)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .x_labels(5)
            .x_label_formatter(&|x| tick(*x, low, high))
            .x_desc(&self.title)
            .label_style(("sans-serif", TEXT))
            .light_line_style(WHITE)
            .bold_line_style(GRID_LINE)
            .draw()
            .map_err(failed)?;
        let (_, top) = plot.get_base_pixel();
        let bar = |x: f64, y: i32| {
            let (x, _) = chart.backend_coord(&(x, 0.0));
            (x, y)
        };
        let zero = bar(low.max(0.0).min(high), 0).0;
        for (row, (name, bars)) in self.names.iter().zip(&self.bars).enumerate() {
            let start = ABOVE + row as i32 * (self.series.len().max(1) as i32 * BAR + GAP) + GAP / 2;
            let middle = start + bars.len() as i32 * BAR / 2;
            write(&plot, name, (left - 12, middle), (HPos::Right, VPos::Center))?;
            for (index, value) in bars.iter().enumerate() {
                let y = start + index as i32 * BAR + BAR / 2;
                let Some(value) = value else {
                    write(&plot, "–", (WIDTH as i32 - right + 12, y), (HPos::Left, VPos::Center))?;
                    continue;
                };
                let (x, low, high) = (bar(value.value, y).0, bar(value.low, y).0, bar(value.high, y).0);
                if self.from_zero {
                    let corners = [(zero.min(x), y - BAR / 2 + 4), (zero.max(x), y + BAR / 2 - 4)];
                    plot.draw(&Rectangle::new(corners, colour(index).filled())).map_err(failed)?;
                } else {
                    marker(&plot, index, (x, y))?;
                }
                if high > low {
                    let style = if self.from_zero { BLACK } else { colour(index) }.stroke_width(2);
                    for line in [[(low, y), (high, y)], [(low, y - 7), (low, y + 7)], [(high, y - 7), (high, y + 7)]] {
                        plot.draw(&PathElement::new(line.to_vec(), style)).map_err(failed)?;
                    }
                }
                write(&plot, &value.text, (WIDTH as i32 - right + 12, y), (HPos::Left, VPos::Center))?;
            }
        }
        if self.from_zero {
            let ends = vec![(zero, ABOVE), (zero, ABOVE + self.plot_height())];
            plot.draw(&PathElement::new(ends, BLACK.stroke_width(2))).map_err(failed)?;
        }
        debug_assert_eq!(top, 0, "the plot is the upper part of the figure");
        self.legend().draw(&legend)
    }
}
