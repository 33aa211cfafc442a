//! Ours beside the published numbers, for the terminal.

use super::accuracy::Block;
use super::beside::{Beside, beside, full_precision, overfitting, unpublished};
use crate::published::{Kind, Published};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::collections::BTreeSet;

/// Tables of one block by kind, wrapped to `width` columns if that is known, then what was not published, and why numbers
/// were not compared; empty where nothing is published of the block.
pub fn text(block: &Block, published: &Published, width: Option<u16>) -> String {
    let lines = beside(block, published);
    if lines.is_empty() {
        return String::new();
    }
    let fp = block.fp_test_top1.map_or("not measured".to_string(), |fp| format!("{:.2}", 100.0 * fp));
    let mut text = format!(
        "{}, setting {}, {} calibration images\nfull precision: ours {fp}\n",
        block.arch, block.setting, block.calib_images
    );
    for (source, fp) in full_precision(block, published) {
        text.push_str(&format!("                {:.2} ({source})\n", 100.0 * fp));
    }
    for kind in [Kind::Official, Kind::Rerun, Kind::Secondary] {
        let lines: Vec<&Beside> = lines.iter().filter(|line| line.kind == Some(kind)).collect();
        if !lines.is_empty() {
            text.push_str(&format!("\npublished, {kind}\n{}\n", table(&lines, width)));
        }
    }
    let unpublished = unpublished(block, published);
    if !unpublished.is_empty() {
        text.push_str(&format!("\nnot published\n{}\n", table(&unpublished.iter().collect::<Vec<_>>(), width)));
    }
    let gaps = overfitting(block, published);
    if !gaps.is_empty() {
        text.push_str("\ncalibration minus test, in points\n");
    }
    for gap in gaps {
        let ours = gap.ours.map_or(String::new(), |ours| format!(", ours {:.2}", 100.0 * ours));
        text.push_str(&format!(
            "{} {:12} published {:.2}{ours}  ({})\n",
            gap.bits,
            gap.method,
            100.0 * gap.published,
            gap.source
        ));
    }
    let reasons: BTreeSet<&String> = lines.iter().filter_map(|line| line.reason.as_ref()).collect();
    for reason in reasons {
        text.push_str(&format!("† not compared: {reason}\n"));
    }
    text
}

fn table(lines: &[&Beside], width: Option<u16>) -> Table {
    let percent = |top1: Option<f64>| top1.map_or(String::new(), |top1| format!("{:.2}", 100.0 * top1));
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.force_no_tty();
    if let Some(width) = width {
        table.set_width(width);
    }
    table.set_header(["bits", "method", "setting", "ours", "seeds", "published", "ours - published", "source"]);
    for line in lines {
        let difference = match (line.difference, &line.reason) {
            (Some(difference), _) => format!("{:+.2}", 100.0 * difference),
            (None, Some(_)) => "†".to_string(),
            (None, None) => String::new(),
        };
        table.add_row([
            line.bits.to_string(),
            line.method.clone(),
            line.setting.to_string(),
            percent(line.ours),
            if line.seeds > 0 { line.seeds.to_string() } else { String::new() },
            percent(line.published),
            difference,
            line.source.clone().unwrap_or_default(),
        ]);
    }
    for column in table.column_iter_mut().skip(3).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
