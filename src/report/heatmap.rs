//! A metric over two axes as a table of coloured entries: accuracy by bits and calibration images.

use super::accuracy::Spread;
use super::canvas::{Drawing, Panel, TEXT, WIDTH, colour, failed, text_width, write};
use super::figure::{Figure, digits, entries_frame, finish, series_names, spread, ticks};
use super::pivot::Pivot;
use crate::error::Result;
use crate::experiment::FigureSpec;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Height of an entry, and of the titles below the names of the columns.
const ROW: i32 = 52;
const TITLES: i32 = 92;
/// Space around the table, and between it and the names.
const MARGIN: i32 = 16;

/// A figure of coloured entries.
struct Heatmap {
    rows: Vec<String>,
    columns: Vec<String>,
    /// Per row, per column, in the unit of the metric; `None` without a finished run.
    values: Vec<Vec<Option<f64>>>,
    digits: usize,
    /// Of the columns, and of the metric.
    x_title: String,
    title: String,
}

/// Means over seeds, a row per series and a column per `x`.
pub fn draw(spec: &FigureSpec, pivot: &Pivot) -> Result<Figure> {
    let (x_title, columns) = ticks(spec, pivot);
    let value = |at| spread(pivot, at, spec.y).map(|Spread { mean, .. }| mean);
    let of_row = |row: usize| (0..columns.len()).map(|column| value((row, column))).collect();
    let heatmap = Heatmap {
        rows: series_names(spec, pivot),
        values: (0..pivot.rows.len()).map(of_row).collect(),
        columns,
        digits: digits(spec.y),
        x_title,
        title: spec.y.title().to_string(),
    };
    finish(spec, &heatmap, entries_frame(spec, pivot)?)
}

/// How dark the colour of a value is, from 0 to 1; where all are the same, in the middle.
fn shade(value: f64, (low, high): (f64, f64)) -> f64 {
    if high > low { (value - low) / (high - low) } else { 0.5 }
}

impl Heatmap {
    /// Width of the names of rows.
    fn left(&self) -> i32 {
        let longest = self.rows.iter().map(|name| text_width(name)).max().unwrap_or(0);
        (longest + 2 * MARGIN).min(WIDTH as i32 / 2)
    }

    fn entry_width(&self) -> i32 {
        (WIDTH as i32 - self.left() - MARGIN) / self.columns.len().max(1) as i32
    }

    /// The longest name of a column; how high it stands where names have no room beside each other.
    fn longest_column(&self) -> i32 {
        self.columns.iter().map(|name| text_width(name)).max().unwrap_or(0)
    }

    fn is_upright(&self) -> bool {
        self.longest_column() + MARGIN / 2 > self.entry_width()
    }

    fn names_height(&self) -> i32 {
        if self.is_upright() { self.longest_column() + MARGIN } else { TEXT + MARGIN }
    }

    fn table_height(&self) -> i32 {
        ROW * self.rows.len() as i32
    }

    fn range(&self) -> (f64, f64) {
        let values = self.values.iter().flatten().flatten();
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)))
    }
}

impl Drawing for Heatmap {
    fn size(&self) -> (u32, u32) {
        (WIDTH, (MARGIN + self.table_height() + self.names_height() + TITLES) as u32)
    }

    fn draw<D: DrawingBackend>(&self, area: &Panel<D>) -> Result<()>
    where
        D::ErrorType: 'static,
    {
        if self.values.iter().flatten().flatten().next().is_none() {
            return write(area, "no finished runs", (40, MARGIN), (HPos::Left, VPos::Top));
        }
        let (left, width, range) = (self.left(), self.entry_width(), self.range());
        let middle = |column: usize| left + column as i32 * width + width / 2;
        for (row, (name, values)) in self.rows.iter().zip(&self.values).enumerate() {
            let top = MARGIN + row as i32 * ROW;
            write(area, name, (left - MARGIN, top + ROW / 2), (HPos::Right, VPos::Center))?;
            for (column, value) in values.iter().enumerate() {
                let x = left + column as i32 * width;
                let share = value.map_or(0.0, |value| shade(value, range));
                let fill = colour(0).mix(0.9 * share);
                area.draw(&Rectangle::new([(x, top), (x + width - 2, top + ROW - 2)], fill.filled()))
                    .map_err(failed)?;
                let text = value.map_or("–".to_string(), |value| format!("{value:.0$}", self.digits));
                let ink = if share > 0.6 { WHITE } else { BLACK };
                let style = ("sans-serif", TEXT).into_font().color(&ink).pos(Pos::new(HPos::Center, VPos::Center));
                area.draw(&Text::new(text, (middle(column), top + ROW / 2), style)).map_err(failed)?;
            }
        }
        let below = MARGIN + self.table_height();
        for (column, name) in self.columns.iter().enumerate() {
            let font = ("sans-serif", TEXT).into_font();
            let (font, place) = match self.is_upright() {
                true => (font.transform(FontTransform::Rotate270), Pos::new(HPos::Right, VPos::Center)),
                false => (font, Pos::new(HPos::Center, VPos::Top)),
            };
            let at = (middle(column), below + MARGIN / 2);
            area.draw(&Text::new(name.clone(), at, TextStyle::from(font).pos(place))).map_err(failed)?;
        }
        let titles = below + self.names_height();
        let centre = left + (WIDTH as i32 - left - MARGIN) / 2;
        write(area, &self.x_title, (centre, titles), (HPos::Center, VPos::Top))?;
        write(area, &self.title, (centre, titles + TITLES / 2), (HPos::Center, VPos::Top))
    }
}

#[cfg(test)]
mod tests {
    use super::shade;

    #[test]
    fn the_largest_value_is_the_darkest() {
        assert_eq!([70.0, 75.0, 80.0].map(|value| shade(value, (70.0, 80.0))), [0.0, 0.5, 1.0]);
        assert_eq!(shade(70.0, (70.0, 70.0)), 0.5);
    }
}
