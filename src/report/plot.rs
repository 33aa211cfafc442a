//! The standard figure: accuracy against bit widths, one panel per block.

use super::accuracy::{Block, Spread};
use super::canvas::svg_and_png;
use super::lines::{LinePanel, Lines};
use crate::error::Result;
use ptq::arch;

/// SVG text and PNG bytes of the same figure.
pub fn draw(blocks: &[Block]) -> Result<(String, Vec<u8>)> {
    // Every method in any block, once: its position is its colour and marker.
    let mut series: Vec<String> = Vec::new();
    for row in blocks.iter().flat_map(|block| &block.rows) {
        if !series.contains(&row.title()) {
            series.push(row.title());
        }
    }
    let panels = blocks.iter().map(|block| panel(block, &series)).collect();
    let y_title = "test top-1 (%)".to_string();
    svg_and_png(&Lines { panels, series, y_title, reference_title: Some("full precision") })
}

fn panel(block: &Block, series: &[String]) -> LinePanel {
    let mut points = vec![vec![None; block.bits.len()]; series.len()];
    for row in &block.rows {
        let index = series.iter().position(|title| *title == row.title()).unwrap_or(0);
        let entries = row.entries.iter().map(|entry| Some(entry.summary.as_ref()?.test.scaled(100.0)));
        points[index] = entries.collect::<Vec<Option<Spread>>>();
    }
    LinePanel {
        title: arch::find(&block.arch).map_or(block.arch.as_str(), |arch| arch.title).to_string(),
        x_title: String::new(),
        x: block.bits.iter().map(ToString::to_string).collect(),
        points,
        reference: block.fp_test_top1.map(|fp| 100.0 * fp),
    }
}
