//! `harness compare GRID`: ours beside the published numbers.

use super::Exit;
use super::report::scan;
use super::session::{GridArgs, ResultsArgs, Session};
use crate::error::{Error, Result};
use crate::published::{self, NETWORKS, Published};
use crate::report::accuracy::blocks;
use crate::report::beside::{Beside, beside, noise_note, unpublished};
use crate::report::beside_text::text;
use comfy_table::Table;
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
    let args = GridArgs::of(grid, results);
    let session = Session::of_stored(&args)?;
    let published = Published::embedded()?;
    let cells = session.plan.iter().map(|planned| &planned.cell);
    let known = cells.clone().filter(|cell| published::find(&cell.dataset, &cell.arch).is_some());
    if known.count() == 0 {
        let networks: BTreeSet<String> = cells.map(|cell| format!("{} on {}", cell.arch, cell.dataset)).collect();
        return Err(Error::NothingMatched(format!(
            "nothing is published of {}; there are numbers of {} alone (assets/published.toml)",
            networks.into_iter().collect::<Vec<_>>().join(", "),
            NETWORKS.map(ToString::to_string).join(", of ")
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
        let output = serde_json::to_string_pretty(&Output { published: &lines, unpublished })
            .map_err(|error| Error::Report(format!("cannot write the comparison as JSON: {error}")))?;
        say!("{output}");
        return Ok(Exit::Done);
    }
    let width = Table::new().width();
    for text in blocks.iter().map(|block| text(block, &published, width)).filter(|text| !text.is_empty()) {
        say!("{text}");
    }
    if let Some(note) = noise_note(&lines) {
        say!("{note}");
    }
    Ok(Exit::Done)
}
