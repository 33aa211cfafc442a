//! `harness list`.

use super::Exit;
use super::session::ResultsArgs;
use crate::error::{Error, Result};
use crate::experiment::Filter;
use crate::store::record::{Record, Status};
use crate::store::{Stored, scan_all};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only runs that match, for example `method=qdrop|genie-*,status=failed`.
    #[arg(long, value_name = "KEY=VALUE,...")]
    filter: Option<String>,
    /// Sort by a key of the filter or by test, calib, gap, full-precision, wall, cpu, memory or started.
    #[arg(long, value_name = "KEY")]
    sort: Option<String>,
    /// From the largest to the smallest.
    #[arg(long)]
    reverse: bool,
    /// Print the records as JSON, accuracies as fractions.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    results: ResultsArgs,
}

const EXAMPLES: &str = "\
Examples:
  harness list
  harness list --filter experiment=drop,status=failed
  harness list --filter 'arch=resnet20,bits=w2a2,recipe.iterations=1000' --sort test --reverse
  harness list --sort wall --json

A filter has the keys of a cell (arch, bits, method, seed, recipe.iterations, ...) and run, experiment, status and revision. \
Folders that hold no readable record are named on stderr and skipped.";

#[derive(Serialize)]
struct Output<'a> {
    runs: Vec<Listed<'a>>,
    damaged: Vec<Damaged<'a>>,
}

#[derive(Serialize)]
struct Listed<'a> {
    folder: &'a Path,
    #[serde(flatten)]
    record: &'a Record,
}

#[derive(Serialize)]
struct Damaged<'a> {
    folder: &'a Path,
    problem: &'a str,
}

/// Lists the stored runs of all experiments.
pub fn list(args: &Args) -> Result<Exit> {
    let mut collection = scan_all(&args.results.results)?;
    for (path, why) in &collection.broken {
        eprintln!("warning: skipping {}: {why}", path.display());
    }
    if collection.runs.is_empty() {
        let results = args.results.results.display();
        return Err(Error::NothingMatched(format!(
            "no runs are stored under {results}; --results names another folder"
        )));
    }
    if let Some(filter) = &args.filter {
        collection.runs = Filter::parse(filter)?.select_by(collection.runs, "stored runs", Stored::fields)?;
    }
    if let Some(key) = &args.sort {
        collection.sort(key)?;
    }
    if args.reverse {
        collection.runs.reverse();
    }
    match args.json {
        true => print_json(&collection.runs, &collection.broken)?,
        false => print_table(&collection.runs, collection.broken.len()),
    }
    Ok(Exit::Done)
}

fn print_json(runs: &[Stored], broken: &[(PathBuf, String)]) -> Result<()> {
    let output = Output {
        runs: runs.iter().map(|run| Listed { folder: &run.folder, record: &run.record }).collect(),
        damaged: broken.iter().map(|(folder, problem)| Damaged { folder, problem }).collect(),
    };
    let json = serde_json::to_string_pretty(&output)
        .map_err(|error| Error::Report(format!("cannot write the list as JSON: {error}")))?;
    say!("{json}");
    Ok(())
}

fn print_table(runs: &[Stored], broken: usize) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["run", "experiment", "status", "test %", "calib. %", "seconds"]);
    let percent = |top1: Option<f64>| top1.map_or(String::new(), |top1| format!("{:.2}", 100.0 * top1));
    for Stored { experiment, record, .. } in runs {
        let metrics = record.metrics.as_ref();
        table.add_row([
            record.run_id.clone(),
            experiment.clone(),
            record.status.to_string(),
            percent(metrics.map(|metrics| metrics.test_top1)),
            percent(metrics.map(|metrics| metrics.calib_top1)),
            format!("{:.0}", record.cost.wall_s),
        ]);
    }
    table.column_iter_mut().skip(3).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    say!("{table}");
    let failed = runs.iter().filter(|run| run.record.status == Status::Failed).count();
    let plural = if runs.len() == 1 { "" } else { "s" };
    let damaged = if broken == 0 { String::new() } else { format!(", {broken} damaged folders skipped") };
    say!("{} run{plural}, {failed} failed{damaged}", runs.len());
}
