//! One self-contained page per experiment: tables that sort, figure, runs with their details, what failed and why.
//!
//! The template escapes whatever comes from records; nothing is loaded from elsewhere, which the page's own content
//! security policy enforces.

use super::figures::Figure;
use super::table::Tables;
use super::{Declared, Rendered, Source};
use crate::error::{Error, Result};
use crate::store::record::{Record, UnitTrace};
use crate::store::{Stored, read_traces};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use std::path::PathBuf;

/// With more runs than these the page leaves out their details.
const DETAILED: usize = 1000;
const COLUMNS: [&str; 11] =
    ["run", "arch", "bits", "method", "variant", "seed", "status", "test %", "calib. %", "gap", "seconds"];

/// What a page is made of.
pub struct Page<'a> {
    pub source: Source<'a>,
    /// The experiment's description.
    pub about: &'a str,
    pub rendered: &'a Rendered,
    pub declared: &'a [Declared],
    pub figures: &'a [Figure],
    pub runs: &'a [Stored],
    /// Folders without a readable record, and why.
    pub damaged: &'a [(PathBuf, String)],
}

#[derive(Serialize)]
struct Context<'a> {
    title: &'a str,
    about: &'a str,
    grid: &'a str,
    tables: &'a Tables,
    figure: String,
    declared: Vec<Named<'a>>,
    figures: Vec<Drawn<'a>>,
    failed: Vec<Failed<'a>>,
    damaged: Vec<Damaged<'a>>,
    columns: [&'static str; 11],
    runs: Vec<Run<'a>>,
    has_details: bool,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    tables: &'a Tables,
}

#[derive(Serialize)]
struct Drawn<'a> {
    name: &'a str,
    caption: &'a str,
    /// URL of its data.
    image: String,
}

#[derive(Serialize)]
struct Failed<'a> {
    id: &'a str,
    error: &'a str,
}

#[derive(Serialize)]
struct Damaged<'a> {
    path: String,
    problem: &'a str,
}

#[derive(Serialize)]
struct Run<'a> {
    id: &'a str,
    /// Of the columns after the first.
    values: Vec<String>,
    details: Option<Details>,
}

#[derive(Serialize)]
struct Details {
    lines: Vec<String>,
    losses: Vec<String>,
    cell: String,
}

/// The page as HTML. Errors: a fault of the template.
pub fn page(page: &Page) -> Result<String> {
    let has_details = page.runs.len() <= DETAILED;
    let details = |run| if has_details { details(run).map(Some) } else { Ok(None) };
    let runs = page
        .runs
        .iter()
        .map(|run| Ok(Run { id: &run.record.run_id, values: values(&run.record), details: details(run)? }));
    let failed =
        page.runs.iter().filter_map(|run| Some(Failed { id: &run.record.run_id, error: run.record.error.as_deref()? }));
    let context = Context {
        title: page.source.title,
        about: page.about,
        grid: page.source.grid,
        tables: &page.rendered.tables,
        figure: format!("data:image/svg+xml,{}", percent_encoded(&page.rendered.svg)),
        declared: page.declared.iter().map(|table| Named { name: &table.name, tables: &table.tables }).collect(),
        figures: page.figures.iter().map(drawn).collect(),
        failed: failed.collect(),
        damaged: page
            .damaged
            .iter()
            .map(|(path, problem)| Damaged { path: path.display().to_string(), problem })
            .collect(),
        columns: COLUMNS,
        runs: runs.collect::<Result<_>>()?,
        has_details,
    };
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Escaping goes by the name: that of HTML.
    let rendered = environment
        .add_template("report.html", include_str!("report.html"))
        .and_then(|()| environment.get_template("report.html")?.render(Serde(&context)));
    rendered.map_err(|error| Error::Report(format!("cannot make report.html: {error:#}")))
}

fn drawn(figure: &Figure) -> Drawn<'_> {
    let image = format!("data:image/svg+xml,{}", percent_encoded(&figure.svg));
    Drawn { name: &figure.name, caption: &figure.caption, image }
}

fn values(record: &Record) -> Vec<String> {
    let (cell, metrics) = (&record.cell, record.metrics.as_ref());
    let percent = |top1: Option<f64>| top1.map_or("–".to_string(), |top1| format!("{:.2}", 100.0 * top1));
    vec![
        cell.arch.clone(),
        cell.bits.to_string(),
        cell.method.clone(),
        cell.variant.clone().unwrap_or_default(),
        cell.seed.to_string(),
        record.status.to_string(),
        percent(metrics.map(|metrics| metrics.test_top1)),
        percent(metrics.map(|metrics| metrics.calib_top1)),
        percent(metrics.map(|metrics| metrics.calib_top1 - metrics.test_top1)),
        format!("{:.1}", record.cost.wall_s),
    ]
}

fn details(run: &Stored) -> Result<Details> {
    let Record { cost, provenance, hashes, method_revision, .. } = &run.record;
    let memory =
        cost.peak_memory_bytes.map_or("unknown".to_string(), |bytes| format!("{:.0} MiB", bytes as f64 / 1_048_576.0));
    let lines = vec![
        format!("{:.1} s wall, {:.1} s processor, peak memory {memory}", cost.wall_s, cost.cpu_s),
        format!(
            "harness {} ({}), method revision {method_revision}, {} with {} threads, grid {}",
            provenance.crate_version, provenance.git_revision, provenance.device, provenance.threads, provenance.grid
        ),
        format!(
            "SHA-256 of weights {}, calibration images {}, test images {}",
            hashes.weights, hashes.calib, hashes.test
        ),
    ];
    // Losses of a damaged folder are no reason to have no page.
    let traces = read_traces(&run.folder).unwrap_or_default();
    let loss = |trace: &UnitTrace| {
        let ends = [trace.loss.first(), trace.loss.last()].map(|loss| loss.copied().unwrap_or(f64::NAN));
        format!("{:24} {:12} {:12.6} -> {:12.6}  {:6.1} s", trace.unit, trace.phase, ends[0], ends[1], trace.wall_s)
    };
    Ok(Details { lines, losses: traces.iter().map(loss).collect(), cell: run.record.cell.to_toml()? })
}

/// `text` as the data of a URL: all but letters and digits as percent signs and hexadecimal digits.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(2 * text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
