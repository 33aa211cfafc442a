//! `harness compare GRID`: ours beside the published numbers.

use super::Exit;
use super::report::scan;
use super::session::{GridArgs, ResultsArgs, Session};
use crate::error::{Error, Result};
use crate::report::accuracy::{Block, blocks};
use crate::report::beside::{Beside, beside, full_precision, noise_note, unpublished};
use crate::report::published::{DATASET, Kind, Published, arch_key};
use candle_core::Device;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// The comparison as JSON; accuracies are fractions.
#[derive(Serialize)]
struct Output<'a> {
    published: &'a [Beside],
    unpublished: Vec<Beside>,
}

/// Prints, for every network of the grid at its bits, what was published beside what is stored.
pub fn compare(grid: &Path, json: bool, results: &ResultsArgs) -> Result<Exit> {
    let args =
        GridArgs { grid: grid.to_path_buf(), filter: None, set: Vec::new(), smoke: false, results: results.clone() };
    let session = Session::open(&args, &Device::Cpu)?;
    let published = Published::embedded()?;
    let cells = session.plan.iter().map(|planned| &planned.cell);
    let known = cells.clone().filter(|cell| cell.dataset == DATASET && arch_key(&cell.arch).is_some());
    if known.count() == 0 {
        let networks: BTreeSet<String> = cells.map(|cell| format!("{} on {}", cell.arch, cell.dataset)).collect();
        return Err(Error::NothingMatched(format!(
            "nothing is published of {}; there are numbers of {DATASET} networks alone (assets/published.toml)",
            networks.into_iter().collect::<Vec<_>>().join(", ")
        )));
    }
    let blocks = blocks(&scan(&session)?.records);
    let lines: Vec<Beside> = blocks.iter().flat_map(|block| beside(block, &published)).collect();
    if lines.is_empty() {
        return Err(Error::NothingMatched(format!(
            "no run of {} is stored at bits of which something is published; `harness run {}` first",
            session.experiment.name,
            grid.display()
        )));
    }
    if json {
        let unpublished = blocks.iter().flat_map(|block| unpublished(block, &published)).collect();
        let text = serde_json::to_string_pretty(&Output { published: &lines, unpublished })
            .map_err(|error| Error::Report(format!("cannot write the comparison as JSON: {error}")))?;
        say!("{text}");
        return Ok(Exit::Done);
    }
    blocks.iter().for_each(|block| print(block, &published));
    if let Some(note) = noise_note(&lines) {
        say!("{note}");
    }
    Ok(Exit::Done)
}

fn print(block: &Block, published: &Published) {
    let lines = beside(block, published);
    if lines.is_empty() {
        return;
    }
    let fp = block.fp_test_top1.map_or("not measured".to_string(), |fp| format!("{:.2}", 100.0 * fp));
    say!("{}, setting {}, {} calibration images", block.arch, block.setting, block.calib_images);
    say!("full precision: ours {fp}");
    for (source, fp) in full_precision(block, published) {
        say!("                {:.2} ({source})", 100.0 * fp);
    }
    for kind in [Kind::Official, Kind::Rerun, Kind::Secondary] {
        let lines: Vec<&Beside> = lines.iter().filter(|line| line.kind == Some(kind)).collect();
        if !lines.is_empty() {
            say!("\npublished, {kind}");
            print_table(&lines);
        }
    }
    let unpublished = unpublished(block, published);
    if !unpublished.is_empty() {
        say!("\nnot published");
        print_table(&unpublished.iter().collect::<Vec<_>>());
    }
    let reasons: BTreeSet<&String> = lines.iter().filter_map(|line| line.reason.as_ref()).collect();
    for reason in reasons {
        say!("† not compared: {reason}");
    }
    say!("");
}

fn print_table(lines: &[&Beside]) {
    let percent = |top1: Option<f64>| top1.map_or(String::new(), |top1| format!("{:.2}", 100.0 * top1));
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
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
    say!("{table}");
}
