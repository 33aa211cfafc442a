//! One self-contained page per experiment: tables that sort and filter, figures, each run with its details folded in,
//! what failed and why.
//!
//! The templates escape whatever comes from records; nothing is loaded from elsewhere, which the page's own content
//! security policy enforces.

use super::details::{Details, data_url, details, percent};
use super::table::Tables;
use super::templates::render;
use super::{Declared, Rendered, Subject};
use crate::error::Result;
use crate::experiment::Metric;
use crate::store::Stored;
use crate::store::record::{Record, Status};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// With more runs than these the page leaves out their details.
const DETAILED: usize = 1000;
/// A figure of more bytes (a row for each of hundreds of runs) stays a file beside the page.
const LARGEST_FIGURE: usize = 1_500_000;
/// Columns for fields of cells that the fixed columns do not tell.
const VARYING: usize = 8;

/// What a page is made of.
pub struct Page<'a> {
    pub subject: Subject<'a>,
    /// The experiment's description.
    pub about: &'a str,
    pub rendered: &'a Rendered,
    pub declared: &'a [Declared],
    pub illustrations: &'a [Illustration<'a>],
    pub runs: &'a [Stored],
    /// Folders without a readable record, and why.
    pub damaged: &'a [(PathBuf, String)],
    /// Ids of the grid's cells of which nothing is stored.
    pub missing: &'a [String],
}

/// A figure of a page.
pub struct Illustration<'a> {
    pub caption: &'a str,
    /// Its file beside the page.
    pub file: String,
    pub image: Image<'a>,
}

pub enum Image<'a> {
    Svg(&'a str),
    Png(&'a [u8]),
}

#[derive(Serialize)]
struct Context<'a> {
    title: &'a str,
    about: &'a str,
    grid: &'a str,
    summary: String,
    tables: &'a Tables,
    illustrations: Vec<Drawn<'a>>,
    declared: Vec<Named<'a>>,
    failed: Vec<Failed<'a>>,
    damaged: Vec<Damaged<'a>>,
    missing: &'a [String],
    columns: Vec<Column>,
    runs: Vec<Run<'a>>,
    has_details: bool,
}

#[derive(Serialize)]
struct Drawn<'a> {
    caption: &'a str,
    file: &'a str,
    /// Data of a URL; `None` if it is too large.
    source: Option<String>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    tables: &'a Tables,
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

/// A column of the table of runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    pub title: String,
    pub is_text: bool,
}

#[derive(Serialize)]
struct Run<'a> {
    id: &'a str,
    failed: bool,
    /// Of the columns after the first.
    values: Vec<String>,
    details: Option<Details>,
}

/// The page as HTML. Errors: a fault of the template.
pub fn page(page: &Page) -> Result<String> {
    let has_details = page.runs.len() <= DETAILED;
    let (columns, values) = run_table(page.runs);
    let runs = page.runs.iter().zip(values).map(|(run, values)| {
        Ok(Run {
            id: &run.record.run_id,
            failed: run.record.status == Status::Failed,
            values,
            details: has_details.then(|| details(run)).transpose()?,
        })
    });
    let failed =
        page.runs.iter().filter_map(|run| Some(Failed { id: &run.record.run_id, error: run.record.error.as_deref()? }));
    let damaged =
        page.damaged.iter().map(|(path, problem)| Damaged { path: path.display().to_string(), problem }).collect();
    let context = Context {
        title: page.subject.title,
        about: page.about,
        grid: page.subject.grid,
        summary: summary(page),
        tables: &page.rendered.tables,
        illustrations: page.illustrations.iter().map(drawn).collect(),
        declared: page.declared.iter().map(|table| Named { name: &table.name, tables: &table.tables }).collect(),
        failed: failed.collect(),
        damaged,
        missing: page.missing,
        columns,
        runs: runs.collect::<Result<_>>()?,
        has_details,
    };
    render("report.html", &context)
}

fn drawn<'a>(illustration: &'a Illustration) -> Drawn<'a> {
    let (media_type, content) = match illustration.image {
        Image::Svg(svg) => ("image/svg+xml", svg.as_bytes()),
        Image::Png(png) => ("image/png", png),
    };
    let source = (content.len() <= LARGEST_FIGURE).then(|| data_url(media_type, content));
    Drawn { caption: illustration.caption, file: &illustration.file, source }
}

fn summary(page: &Page) -> String {
    let failed = page.runs.iter().filter(|run| run.record.status == Status::Failed).count();
    let mut parts = vec![format!("{} done", page.runs.len() - failed)];
    let more = [(failed, "failed"), (page.missing.len(), "not run yet"), (page.damaged.len(), "damaged and skipped")];
    parts.extend(more.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    parts.join(", ")
}

/// The columns of a table of `runs`, the id first, and the values of all columns but the id.
///
/// Beside what every run has, there is a column for each field in which runs of one method, network and
/// variant differ.
pub fn run_table(runs: &[Stored]) -> (Vec<Column>, Vec<Vec<String>>) {
    const TEXTS: [&str; 4] = ["arch", "bits", "method", "variant"];
    const NUMBERS: [&str; 6] = ["seed", "status", "test %", "calib. %", "gap", "seconds"];
    let varying = varying(runs);
    let column = |title: &str, is_text| Column { title: title.to_string(), is_text };
    let mut columns = vec![column("run", true)];
    columns.extend(TEXTS.map(|title| column(title, true)));
    columns.extend(varying.iter().map(|title| column(title, false)));
    columns.extend(NUMBERS.map(|title| column(title, title == "status")));
    (columns, runs.iter().map(|run| values(&run.record, &varying)).collect())
}

fn values(record: &Record, varying: &[String]) -> Vec<String> {
    let cell = &record.cell;
    let shown = |metric: Metric| record.fact(metric.fact()).map_or("–".to_string(), percent);
    let variant = cell.variant.clone().unwrap_or_default();
    let mut values = vec![cell.arch.clone(), cell.bits.to_string(), cell.method.clone(), variant];
    if !varying.is_empty() {
        let fields = cell.fields();
        values.extend(varying.iter().map(|key| fields.get(key).cloned().unwrap_or_default()));
    }
    values.extend([
        cell.seed.to_string(),
        record.status.to_string(),
        shown(Metric::TEST),
        shown(Metric::CALIB),
        shown(Metric::GAP),
        format!("{:.1}", record.cost.wall_s),
    ]);
    values
}

/// Fields in which runs of one method, network and variant differ, without those that have a column anyway.
fn varying(runs: &[Stored]) -> Vec<String> {
    let mut groups: BTreeMap<(&str, &str, Option<&str>), Vec<_>> = BTreeMap::new();
    for run in runs {
        let cell = &run.record.cell;
        groups.entry((&cell.method, &cell.arch, cell.variant.as_deref())).or_default().push(cell.fields());
    }
    let mut varying = BTreeSet::new();
    for group in groups.values() {
        let keys: BTreeSet<&String> = group.iter().flat_map(BTreeMap::keys).collect();
        let differs = |key: &&&String| group.iter().any(|fields| fields.get(**key) != group[0].get(**key));
        varying.extend(keys.iter().filter(differs).map(|key| key.to_string()));
    }
    let has_column = |key: &String| matches!(key.as_str(), "arch" | "bits" | "method" | "variant" | "seed");
    varying.into_iter().filter(|key| !has_column(key)).take(VARYING).collect()
}

#[cfg(test)]
mod tests {
    use super::super::render as render_tables;
    use super::*;
    use crate::store::{Artefacts, Store};
    use ptq::recon::trace::UnitTrace;

    const EVIL: &str = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'";

    fn stored(results: &std::path::Path, records: Vec<Record>) -> Vec<Stored> {
        let store = Store::new(results, "x");
        let _lock = store.lock().unwrap();
        let mut trace = UnitTrace::new(EVIL, "weights");
        (trace.iterations, trace.loss) = (vec![1, 2], vec![2.0, 1.0]);
        records
            .into_iter()
            .map(|record| {
                let artefacts =
                    Artefacts { traces: vec![trace.clone()], log: Some(EVIL.into()), ..Artefacts::default() };
                store.write_run(&record, "", &artefacts).unwrap();
                Stored::read("x", store.run_folder(&record.run_id), record)
            })
            .collect()
    }

    fn made(runs: &[Stored], damaged: &[(PathBuf, String)], missing: &[String]) -> String {
        let subject = Subject { title: EVIL, grid: EVIL };
        let records: Vec<Record> = runs.iter().map(|run| run.record.clone()).collect();
        let rendered = render_tables(&records, &subject).unwrap();
        let illustrations = [Illustration { caption: EVIL, file: "x.svg".into(), image: Image::Svg(&rendered.svg) }];
        page(&Page {
            subject,
            about: EVIL,
            rendered: &rendered,
            declared: &[],
            illustrations: &illustrations,
            runs,
            damaged,
            missing,
        })
        .unwrap()
    }

    #[test]
    fn whatever_records_say_stays_text() {
        let results = tempfile::tempdir().unwrap();
        let mut record = Record::sample("run-1", "qdrop", "W2A2", 0);
        record.cell.variant = Some(EVIL.into());
        record.provenance.grid = EVIL.into();
        let mut failed = Record::sample("run-2", "rtn", "W2A2", 0).failed(EVIL);
        failed.cell.arch = EVIL.into();
        let runs = stored(results.path(), vec![record, failed]);
        let page = made(&runs, &[(EVIL.into(), EVIL.into())], &[EVIL.into()]);
        assert_eq!(page.matches("<script>").count(), 1, "only the page's own");
        assert!(!page.contains("<img src=x") && !page.contains(EVIL));
        assert!(page.matches("&lt;script&gt;alert(1)").count() > 10);
        // Nothing is loaded from elsewhere: every address is a place in the page or data.
        for attribute in ["src=\"", "href=\""] {
            let addresses = page.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap());
            for address in addresses {
                assert!(address.starts_with("data:") || address.starts_with('#'), "{address}");
            }
        }
    }

    #[test]
    fn runs_have_their_losses_log_and_configuration_and_what_failed_is_said() {
        let results = tempfile::tempdir().unwrap();
        let runs =
            [Record::sample("run-1", "qdrop", "W2A2", 0), Record::sample("run-2", "rtn", "W2A2", 0).failed("why")];
        let runs = stored(results.path(), runs.to_vec());
        std::fs::write(runs[1].folder.join("trace.json"), "[{").unwrap();
        let page = made(&runs, &[("results/x/runs/half".into(), "not a complete record".into())], &["run-3".into()]);
        for part in [
            "1 done, 1 failed, 1 not run yet, 1 damaged and skipped",
            "d=\"M75 0L150 40\"",
            "drop-inside",
            "href=\"#run-run-2\"",
            "half",
            "not a complete record",
            "run-3<br>",
            "trace.json: ",
        ] {
            assert!(page.contains(part), "{part:?} is missing");
        }
        let large = vec![0; LARGEST_FIGURE + 1];
        let illustration = |image| Illustration { caption: "", file: "f.png".into(), image };
        assert!(drawn(&illustration(Image::Png(&large))).source.is_none());
        assert_eq!(drawn(&illustration(Image::Png(&[0]))).source.as_deref(), Some("data:image/png;base64,AA=="));
        let without: Vec<Stored> = (0..=DETAILED).map(|_| runs[0].clone()).collect();
        let page = made(&without, &[], &[]);
        assert!(page.contains("too many runs") && !page.contains("drop-inside"));
    }

    #[test]
    fn fields_that_vary_within_a_method_are_columns() {
        let run = |method: &str, drop_input: f64, seed: u64| {
            let mut record = Record::sample("run", method, "W2A2", seed);
            record.cell.recipe.drop_input = drop_input;
            Stored::read("x", PathBuf::new(), record)
        };
        let titles = |runs: &[Stored]| run_table(runs).0.into_iter().map(|column| column.title).collect::<Vec<_>>();
        let fixed = titles(&[run("qdrop", 0.5, 0), run("genie-m", 0.5, 1)]);
        assert!(!fixed.contains(&"recipe.drop-input".to_string()) && fixed.len() == 11, "{fixed:?}");
        let runs = [run("qdrop", 0.5, 0), run("qdrop", 0.25, 0)];
        assert_eq!(titles(&runs)[5], "recipe.drop-input");
        assert_eq!(run_table(&runs).1[1][4], "0.25");
        assert_eq!(run_table(&[]).1.len(), 0);
    }
}
