//! Tables and figures: pure functions of stored records. polars and plotters stay in here.

mod ablation;
pub mod accuracy;
mod bars;
pub mod beside;
mod beside_published;
pub mod beside_text;
mod canvas;
mod caption;
mod declared;
pub mod details;
pub mod digits;
pub mod figure;
mod figure_frames;
pub mod figures;
pub mod frame;
mod heatmap;
pub mod html;
mod latex;
pub mod layers;
mod lines;
mod losses;
pub mod paired;
mod parquet_file;
pub mod picture;
mod pivot;
mod plot;
mod render;
mod scatter;
pub mod side;
pub mod statistics;
mod table;
pub mod templates;
pub mod transform;

use crate::error::Result;
use crate::experiment::TableSpec;
use crate::published::Published;
use crate::store::Planned;
use crate::store::Stored;
use crate::store::record::Record;
use beside::{Beside, beside};
use declared::Tabulated;
use table::Tables;

/// What a report is of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The experiment's title.
    pub title: &'a str,
    /// The grid file, as the command that makes the report again names it.
    pub grid: &'a str,
}

/// A report in all its formats; the same records give the same bytes.
pub struct Rendered {
    pub markdown: String,
    /// For a document that uses booktabs.
    pub latex: String,
    /// The table in long form, accuracies as fractions.
    pub accuracy_csv: Vec<u8>,
    /// Published numbers beside ours, where there are any.
    pub published_csv: Option<Vec<u8>>,
    /// One line per run.
    pub runs_csv: Vec<u8>,
    pub runs_parquet: Vec<u8>,
    pub svg: String,
    pub png: Vec<u8>,
    pub terminal: String,
    tables: Tables,
}

/// Renders `records`, in their order.
pub fn render(records: &[Record], subject: &Subject) -> Result<Rendered> {
    let blocks = accuracy::blocks(records);
    let published = Published::embedded()?;
    let tables = table::tables(records, &blocks, &published);
    let lines: Vec<Beside> = blocks.iter().flat_map(|block| beside(block, &published)).collect();
    let (svg, png) = plot::draw(&blocks)?;
    let figure = if blocks.is_empty() { "" } else { "\n![accuracy against bits](accuracy.png)\n" };
    Ok(Rendered {
        markdown: render::markdown(&tables, subject) + figure,
        latex: latex::latex(&tables, subject, "accuracy"),
        published_csv: (!lines.is_empty()).then(|| beside::frame(&lines).and_then(frame::to_csv)).transpose()?,
        accuracy_csv: frame::to_csv(accuracy::long_frame(&blocks)?)?,
        runs_csv: frame::to_csv(frame::frame(records)?)?,
        runs_parquet: parquet_file::to_parquet(&frame::frame(records)?)?,
        svg,
        png,
        terminal: render::terminal(&tables),
        tables,
    })
}

/// A table that the grid declares, in all its formats.
pub struct Declared {
    pub name: String,
    pub markdown: String,
    pub latex: String,
    /// One row per entry, accuracies as fractions.
    pub csv: Vec<u8>,
    pub parquet: Vec<u8>,
    pub terminal: String,
    tables: Tables,
}

/// Renders the tables that a grid declares from the runs `stored` of the cells in `plan`.
pub fn render_declared(
    specs: &[TableSpec],
    plan: &[Planned],
    stored: &[Stored],
    subject: &Subject,
) -> Result<Vec<Declared>> {
    let published = Published::embedded()?;
    let rendered = specs.iter().map(|spec| {
        let Tabulated { tables, frame } = declared::declared(spec, plan, stored, &published)?;
        Ok(Declared {
            name: spec.name.clone(),
            markdown: render::markdown(&tables, subject),
            latex: latex::latex(&tables, subject, &spec.name),
            csv: frame::to_csv(frame.clone())?,
            parquet: parquet_file::to_parquet(&frame)?,
            terminal: render::terminal(&tables),
            tables,
        })
    });
    rendered.collect()
}

#[cfg(test)]
mod tests;
