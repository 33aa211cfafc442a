//! What all figures share: size, font, palette, markers, legend, and the two formats.

use super::details::data_url;
use crate::error::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::sync::OnceLock;

/// Pixels; a figure of this width is read at 8 cm.
pub const WIDTH: u32 = 760;
pub const TEXT: i32 = 26;
/// Height of one row of a legend.
const LEGEND_ROW: u32 = 64;
pub const GRID_LINE: RGBColor = RGBColor(225, 225, 225);
/// Okabe and Ito's palette, told apart by readers with colour vision deficiencies.
pub const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

pub type Panel<D> = DrawingArea<D, Shift>;

/// A figure that any backend can draw.
pub trait Drawing {
    /// Pixels.
    fn size(&self) -> (u32, u32);

    fn draw<D: DrawingBackend>(&self, area: &Panel<D>) -> Result<()>
    where
        D::ErrorType: 'static;
}

/// SVG text and PNG bytes of the same figure.
pub fn svg_and_png(drawing: &impl Drawing) -> Result<(String, Vec<u8>)> {
    register_font()?;
    let mut svg = String::new();
    draw_on(SVGBackend::with_string(&mut svg, drawing.size()), drawing)?;
    Ok((svg, png(drawing)?))
}

/// PNG bytes of a figure; plotters writes them only to files.
pub fn png(drawing: &impl Drawing) -> Result<Vec<u8>> {
    register_font()?;
    let folder = tempfile::tempdir().map_err(Error::io("cannot make a folder in", &std::env::temp_dir()))?;
    let path = folder.path().join("figure.png");
    draw_on(BitMapBackend::new(&path, drawing.size()), drawing)?;
    std::fs::read(&path).map_err(Error::io("cannot read", &path))
}

fn draw_on<D: DrawingBackend>(backend: D, drawing: &impl Drawing) -> Result<()>
where
    D::ErrorType: 'static,
{
    let area = backend.into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    drawing.draw(&area)?;
    area.present().map_err(failed)
}

/// An SVG that is the picture `png` of `size` pixels: for figures whose content is pixels, of which vectors would be
/// thousands of squares.
pub fn svg_of_pixels((width, height): (u32, u32), png: &[u8]) -> String {
    let source = data_url("image/png", png);
    format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n<image width=\"{width}\" height=\"{height}\" \
         href=\"{source}\"/>\n</svg>\n"
    )
}

/// plotters looks for no system fonts in this build: it draws with the one compiled in.
fn register_font() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let font = include_bytes!("../../assets/fonts/DejaVuSans.ttf");
    let registered =
        REGISTERED.get_or_init(|| plotters::style::register_font("sans-serif", FontStyle::Normal, font).is_ok());
    registered.then_some(()).ok_or_else(|| Error::Report("the embedded font cannot be used".to_string()))
}

pub fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
    Error::Report(format!("cannot draw: {error}"))
}

/// About how wide `text` is, in pixels.
pub fn text_width(text: &str) -> i32 {
    text.chars().count() as i32 * TEXT * 56 / 100
}

/// Writes `text` anchored at pixel `at` of `area`.
pub fn write<D: DrawingBackend>(
    area: &Panel<D>,
    text: &str,
    at: (i32, i32),
    (horizontal, vertical): (HPos, VPos),
) -> Result<()>
where
    D::ErrorType: 'static,
{
    let style = TextStyle::from(("sans-serif", TEXT).into_font()).pos(Pos::new(horizontal, vertical));
    area.draw(&Text::new(text.to_string(), at, style)).map_err(failed)
}

/// The colour of series `index`.
pub fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// The pieces of a line through `points`: drawn as one, plotters would lengthen its sharp corners to spikes.
pub fn segments<X: Clone + 'static, Y: Clone + 'static>(
    points: &[(X, Y)],
    colour: RGBColor,
) -> impl Iterator<Item = PathElement<(X, Y)>> + '_ {
    points.windows(2).map(move |pair| PathElement::new(pair.to_vec(), colour.stroke_width(2)))
}

/// The marker of series `index`, centred at pixel `(x, y)` of `area`: shape and colour both tell it.
pub fn marker<D: DrawingBackend>(area: &Panel<D>, index: usize, (x, y): (i32, i32)) -> Result<()>
where
    D::ErrorType: 'static,
{
    let style = colour(index).filled();
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

/// Names of series below a figure, and of its dashed line if it has one.
pub struct Legend<'a> {
    pub series: &'a [String],
    pub dashed: Option<&'a str>,
    pub width: u32,
}

impl Legend<'_> {
    /// 0 where there is nothing to tell apart.
    pub fn height(&self) -> u32 {
        let count = self.series.len() + usize::from(self.dashed.is_some());
        if count == 0 { 0 } else { LEGEND_ROW * count.div_ceil(self.per_row()) as u32 }
    }

    /// So that the longest name fits.
    fn per_row(&self) -> usize {
        let names = self.series.iter().map(String::as_str).chain(self.dashed);
        let longest = names.map(text_width).max().unwrap_or(0);
        // Marker and gaps beside the name.
        (self.width as i32 / (44 + longest)).max(1) as usize
    }

    pub fn draw<D: DrawingBackend>(&self, area: &Panel<D>) -> Result<()>
    where
        D::ErrorType: 'static,
    {
        let count = self.series.len() + usize::from(self.dashed.is_some());
        let per_row = self.per_row();
        let step = self.width as usize / per_row.min(count.max(1));
        let names = self.series.iter().map(String::as_str).chain(self.dashed);
        for (index, name) in names.enumerate() {
            let x = 30 + (step * (index % per_row)) as i32;
            let y = 26 + LEGEND_ROW as i32 * (index / per_row) as i32;
            if index < self.series.len() {
                marker(area, index, (x, y))?;
            } else {
                for dash in [(x - 14, x - 3), (x + 3, x + 14)] {
                    let line = PathElement::new(vec![(dash.0, y), (dash.1, y)], BLACK.stroke_width(2));
                    area.draw(&line).map_err(failed)?;
                }
            }
            write(area, name, (x + 22, y - TEXT / 3), (HPos::Left, VPos::Top))?;
        }
        Ok(())
    }
}

/// Numbers of an axis from `low` to `high`, with as many digits as tell them apart.
pub fn tick(value: f64, low: f64, high: f64) -> String {
    let digits = match high - low {
        range if range < 0.4 => 2,
        range if range < 4.0 => 1,
        _ => 0,
    };
    // Adding 0 turns the -0 that rounding leaves into 0.
    format!("{:.digits$}", value + 0.0).replacen("-0.00", "0.00", usize::from(value.abs() < 0.005))
}
