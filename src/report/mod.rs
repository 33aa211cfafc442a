//! Tables and figures: pure functions of stored records. polars and plotters stay in here.

pub mod accuracy;
mod caption;
pub mod frame;
pub mod paired;
mod plot;
mod render;
pub mod side;
pub mod statistics;

use crate::error::Result;
use crate::store::record::Record;

/// What a report is of.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The experiment's title.
    pub title: &'a str,
    /// The grid file, as the command that makes the report again names it.
    pub grid: &'a str,
}

/// A report in all its formats; the same records give the same bytes.
pub struct Rendered {
    pub markdown: String,
    /// The table in long form, accuracies as fractions.
    pub accuracy_csv: Vec<u8>,
    /// One line per run.
    pub runs_csv: Vec<u8>,
    pub svg: String,
    pub png: Vec<u8>,
    pub terminal: String,
}

/// Renders `records`, in their order.
pub fn render(records: &[Record], source: &Source) -> Result<Rendered> {
    let blocks = accuracy::blocks(records);
    let (svg, png) = plot::draw(&blocks)?;
    Ok(Rendered {
        markdown: render::markdown(records, &blocks, source),
        accuracy_csv: frame::to_csv(accuracy::long_frame(&blocks)?)?,
        runs_csv: frame::to_csv(frame::frame(records)?)?,
        svg,
        png,
        terminal: render::terminal(records, &blocks),
    })
}

#[cfg(test)]
mod tests;
