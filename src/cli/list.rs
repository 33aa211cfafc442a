//! `harness list`.

use super::Exit;
use super::columns::{heading, kind, shown};
use super::filter_help::filter_help;
use super::session::ResultsArgs;
use super::stored;
use crate::error::{Error, Result};
use crate::experiment::Filter;
use crate::experiment::filter::{Kind, Subject};
use crate::store::record::{Record, Status};
use crate::store::{Collection, Stored, annotations::Note, check_name};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", filter_help()))]
pub struct Args {
    /// Only runs that match, for example `method(qdrop | genie-*) & status(failed)`.
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// Sort by anything that filters know: test, gap, wall, started, method, recipe.iterations, ...
    #[arg(long, value_name = "KEY")]
    sort: Option<String>,
    /// From the largest to the smallest.
    #[arg(long)]
    reverse: bool,
    /// What to show of each run: anything that filters know.
    #[arg(long, value_name = "KEY,...", value_delimiter = ',')]
    columns: Vec<String>,
    /// How to print: a table, or all fields as JSON, or comma-separated values; there accuracies are fractions.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    results: ResultsArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

const EXAMPLES: &str = "\
Examples:
  harness list
  harness list --filter 'experiment(drop) & status(failed)'
  harness list --filter 'arch(resnet20) & bits(w2a2) & recipe.iterations(>=1000)' --sort test --reverse
  harness list --columns run,method,seed,test,gap --format csv
  harness list --filter 'tag(paper)' --json

Folders that hold no readable record, or one that cannot be true (an id that is not that of what it says, accuracies that are \
no fractions), are named on stderr and skipped.";

/// Columns of the table and of comma-separated values; those that no run has a value of are left out of the table.
const COLUMNS: [&str; 8] = ["run", "experiment", "status", "test", "calib", "wall", "tag", "note"];
/// Columns that are left out where all are empty.
const OPTIONAL: [&str; 2] = ["tag", "note"];

#[derive(Serialize)]
struct Output<Run> {
    runs: Vec<Run>,
    damaged: Vec<Damaged>,
}

#[derive(Serialize)]
struct Listed<'a> {
    folder: &'a Path,
    /// Whether the run is done by another revision of the method, or of a module that it uses, than this harness has.
    stale: bool,
    tags: &'a BTreeSet<String>,
    notes: &'a [Note],
    #[serde(flatten)]
    record: &'a Record,
}

#[derive(Serialize)]
struct Damaged {
    folder: PathBuf,
    problem: String,
}

/// Lists the stored runs of all experiments.
pub fn list(args: &Args) -> Result<Exit> {
    let filter = args.filter.as_deref().map(Filter::parse).transpose()?;
    for name in &args.columns {
        check_name("--columns", name)?;
    }
    let mut collection = stored::all(&args.results.results)?;
    if collection.runs.is_empty() {
        let results = args.results.results.display();
        return Err(Error::NothingMatched(format!(
            "no runs are stored under {results}; --results names another folder"
        )));
    }
    if let Some(filter) = &filter {
        collection.runs = filter.select(collection.runs)?;
    }
    if let Some(key) = &args.sort {
        collection.sort(key)?;
    }
    if args.reverse {
        collection.runs.reverse();
    }
    match if args.json { Format::Json } else { args.format } {
        Format::Json => print_json(collection, &args.columns)?,
        Format::Csv => print_csv(&collection.runs, &columns(args)),
        Format::Table => {
            let mut columns = columns(args);
            if args.columns.is_empty() {
                let is_empty = |name: &str| collection.runs.iter().all(|run| values(run, name).is_empty());
                columns.retain(|name| !OPTIONAL.contains(name) || !is_empty(name));
            }
            print_table(&collection, &columns);
        }
    }
    Ok(Exit::Done)
}

fn columns(args: &Args) -> Vec<&str> {
    match args.columns.is_empty() {
        true => COLUMNS.to_vec(),
        false => args.columns.iter().map(String::as_str).collect(),
    }
}

fn values(run: &Stored, name: &str) -> Vec<String> {
    run.values(name).unwrap_or_default()
}

fn print_json(collection: Collection, columns: &[String]) -> Result<()> {
    let damaged = collection.broken.into_iter().map(|(folder, problem)| Damaged { folder, problem }).collect();
    let runs = &collection.runs;
    let json = if columns.is_empty() {
        let listed = |run| {
            let Stored { folder, record, annotations, .. }: &Stored = run;
            let stale = record.status == Status::Done && !run.outdated().is_empty();
            Listed { folder, stale, tags: &annotations.tags, notes: &annotations.notes, record }
        };
        serde_json::to_string_pretty(&Output { runs: runs.iter().map(listed).collect(), damaged })
    } else {
        let listed = |run| -> BTreeMap<&str, serde_json::Value> {
            columns.iter().map(|name| (name.as_str(), json_value(run, name))).collect()
        };
        serde_json::to_string_pretty(&Output { runs: runs.iter().map(listed).collect(), damaged })
    };
    let json = json.map_err(|error| Error::Report(format!("cannot write the list as JSON: {error}")))?;
    say!("{json}");
    Ok(())
}

/// Null where there is no value, a list for tags and notes, of which there may be several.
fn json_value(run: &Stored, name: &str) -> serde_json::Value {
    let is_number = matches!(kind(name), Kind::Number | Kind::Fraction);
    let value = |text: String| match is_number.then(|| text.parse::<serde_json::Number>().ok()).flatten() {
        Some(number) => number.into(),
        None => text.into(),
    };
    let mut values: Vec<serde_json::Value> = values(run, name).into_iter().map(value).collect();
    match matches!(name, "tag" | "note" | "augment") {
        true => values.into(),
        false => values.pop().unwrap_or_default(),
    }
}

fn print_csv(runs: &[Stored], columns: &[&str]) {
    let quoted = |text: &str| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    };
    say!("{}", columns.join(","));
    for run in runs {
        let line: Vec<String> = columns.iter().map(|name| quoted(&values(run, name).join("; "))).collect();
        say!("{}", line.join(","));
    }
}

fn print_table(collection: &Collection, columns: &[&str]) {
    let runs = &collection.runs;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().map(|name| heading(name)));
    for run in runs {
        table.add_row(columns.iter().map(|name| {
            let shown: Vec<String> = values(run, name).into_iter().map(|value| shown(name, &value)).collect();
            // A note is a line of the list, not a page.
            shown.join(", ").lines().next().unwrap_or_default().to_string()
        }));
    }
    for (column, name) in table.column_iter_mut().zip(columns) {
        if matches!(kind(name), Kind::Number | Kind::Fraction) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    say!("{table}");
    let failed = runs.iter().filter(|run| run.record.status == Status::Failed).count();
    let plural = if runs.len() == 1 { "" } else { "s" };
    let broken = collection.broken.len();
    let damaged = if broken == 0 { String::new() } else { format!(", {broken} damaged folders skipped") };
    say!("{} run{plural}, {failed} failed{damaged}", runs.len());
}
