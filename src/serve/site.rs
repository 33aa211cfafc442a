//! The pages, made of what is stored at the moment.

use super::json::json;
use super::live::Shown;
use crate::error::Result;
use crate::report::details::{Details, details};
use crate::report::html::{Column, run_table};
use crate::report::templates::render;
use crate::store::live::Live;
use crate::store::record::Status;
use crate::store::{Scan, Store, Stored, experiments, read_if_there};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

/// After this time runs are read again though their folder seems unchanged: a file within one of them may not be.
const FRESH: Duration = Duration::from_secs(30);
/// A folder that changed this shortly before it was read may have changed again without another time stamp.
const SETTLED: Duration = Duration::from_secs(2);

/// What is stored under a folder of results.
pub struct Site {
    results: PathBuf,
    /// By name.
    read: Mutex<BTreeMap<String, Read>>,
}

/// Runs of an experiment as they were read.
#[derive(Clone)]
struct Read {
    /// When it was read, and the time stamp that the folder had.
    at: SystemTime,
    modified: Option<SystemTime>,
    runs: Arc<Runs>,
}

/// The runs of an experiment, and what pages say of them.
pub struct Runs {
    pub stored: Vec<Stored>,
    broken: Vec<(PathBuf, String)>,
    columns: Vec<Column>,
    values: Vec<Vec<String>>,
    failed: usize,
    /// Made when it is first asked for.
    configurations: OnceLock<Vec<Vec<(String, String)>>>,
}

impl Runs {
    pub fn new(stored: Vec<Stored>, broken: Vec<(PathBuf, String)>) -> Self {
        let (columns, values) = run_table(&stored);
        let failed = stored.iter().filter(|run| run.record.status == Status::Failed).count();
        Self { stored, broken, columns, values, failed, configurations: OnceLock::new() }
    }

    /// [`Stored::configuration`] of each run. A thousand of them take long enough to be kept.
    pub fn configurations(&self) -> &[Vec<(String, String)>] {
        self.configurations.get_or_init(|| self.stored.par_iter().map(Stored::configuration).collect())
    }
}

#[derive(Serialize)]
struct Overview<'a> {
    results: String,
    running: Vec<&'a Summary>,
    experiments: &'a [Summary],
}

/// An experiment in one line.
#[derive(Serialize)]
struct Summary {
    name: String,
    state: String,
    done: usize,
    failed: usize,
    damaged: usize,
    has_report: bool,
    live: Option<Shown>,
    #[serde(skip)]
    raw: Option<Live>,
}

#[derive(Serialize)]
struct ExperimentPage<'a> {
    name: &'a str,
    state: String,
    done: usize,
    failed: usize,
    has_report: bool,
    /// The filter that selects its runs.
    filter: String,
    live_state: Option<Shown>,
    damaged: Vec<Damaged<'a>>,
    columns: &'a [Column],
    runs: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Damaged<'a> {
    path: String,
    problem: &'a str,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    failed: bool,
    error: &'a str,
    values: &'a [String],
}

#[derive(Serialize)]
struct RunPage<'a> {
    id: &'a str,
    experiment: &'a str,
    /// The filter that selects the runs of its experiment.
    filter: String,
    run: Details,
}

/// An experiment in `state.json`.
#[derive(Serialize)]
struct State<'a> {
    experiment: &'a str,
    done: usize,
    failed: usize,
    damaged: usize,
    live: Option<&'a Live>,
}

impl Site {
    pub fn new(results: &Path) -> Self {
        Self { results: results.to_path_buf(), read: Mutex::default() }
    }

    /// All experiments, those that run first.
    pub fn overview(&self) -> Result<String> {
        let experiments = self.summaries()?;
        let running = experiments.iter().filter(|experiment| experiment.live.is_some()).collect();
        let results = self.results.display().to_string();
        render("overview.html", &Overview { results, running, experiments: &experiments })
    }

    /// The same as JSON, for programs.
    pub fn state(&self) -> Result<Vec<u8>> {
        let experiments = self.summaries()?;
        let states = experiments.iter().map(|summary| State {
            experiment: &summary.name,
            done: summary.done,
            failed: summary.failed,
            damaged: summary.damaged,
            live: summary.raw.as_ref(),
        });
        json("the state", &states.collect::<Vec<_>>())
    }

    /// The runs of experiment `name`; `None` if there is none.
    pub fn experiment(&self, name: &str) -> Result<Option<String>> {
        let Some(store) = self.find(name)? else { return Ok(None) };
        let runs = self.runs(name, &store)?;
        let live = store.live();
        let lines = runs.stored.iter().zip(&runs.values).map(|(run, values)| Line {
            id: &run.record.run_id,
            failed: run.record.status == Status::Failed,
            error: run.record.error.as_deref().unwrap_or_default(),
            values,
        });
        let page = ExperimentPage {
            name,
            state: state(live.as_ref()),
            done: runs.stored.len() - runs.failed,
            failed: runs.failed,
            has_report: has_report(&store),
            filter: filter_of(name),
            live_state: live.as_ref().map(Shown::new),
            damaged: runs
                .broken
                .iter()
                .map(|(path, problem)| Damaged { path: path.display().to_string(), problem })
                .collect(),
            columns: &runs.columns,
            runs: lines.collect(),
        };
        render("experiment.html", &page).map(Some)
    }

    /// One run with its details.
    pub fn run(&self, name: &str, id: &str) -> Result<Option<String>> {
        let Some(store) = self.find(name)? else { return Ok(None) };
        let runs = self.runs(name, &store)?;
        let Some(run) = runs.stored.iter().find(|run| run.record.run_id == id) else { return Ok(None) };
        let page = RunPage { id, experiment: name, filter: filter_of(name), run: details(run)? };
        render("run.html", &page).map(Some)
    }

    /// The report that was written last.
    pub fn report(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(store) = self.find(name)? else { return Ok(None) };
        read_if_there(&report_path(&store))
    }

    /// The runs of every experiment.
    pub fn all_runs(&self) -> Result<Vec<Arc<Runs>>> {
        let runs = |name: String| self.runs(&name, &Store::new(&self.results, &name));
        experiments(&self.results)?.into_iter().map(runs).collect()
    }

    /// The runs of experiment `name`; `None` if there is none.
    pub fn runs_of(&self, name: &str) -> Result<Option<Arc<Runs>>> {
        self.find(name)?.map(|store| self.runs(name, &store)).transpose()
    }

    fn summaries(&self) -> Result<Vec<Summary>> {
        let summary = |name: String| {
            let store = Store::new(&self.results, &name);
            let (runs, live) = (self.runs(&name, &store)?, store.live());
            Ok(Summary {
                state: state(live.as_ref()),
                done: runs.stored.len() - runs.failed,
                failed: runs.failed,
                damaged: runs.broken.len(),
                has_report: has_report(&store),
                live: live.as_ref().map(Shown::new),
                raw: live,
                name,
            })
        };
        experiments(&self.results)?.into_iter().map(summary).collect()
    }

    /// The store of the experiment that is called `name`. Names are compared with those that are there: none makes a path.
    fn find(&self, name: &str) -> Result<Option<Store>> {
        let known = experiments(&self.results)?.into_iter().find(|known| known == name);
        Ok(known.map(|name| Store::new(&self.results, &name)))
    }

    /// The runs of an experiment, read again if its folder changed.
    fn runs(&self, name: &str, store: &Store) -> Result<Arc<Runs>> {
        let now = SystemTime::now();
        let modified = std::fs::metadata(store.run_folder("")).and_then(|folder| folder.modified()).ok();
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(read) = known.filter(|read| read.is_current(modified, now)) {
            return Ok(read.runs);
        }
        let Scan { records, broken } = store.scan()?;
        let stored: Vec<Stored> =
            records.into_iter().map(|record| Stored::read(name, store.run_folder(&record.run_id), record)).collect();
        let runs = Arc::new(Runs::new(stored, broken));
        let read = Read { at: now, modified, runs: runs.clone() };
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), read);
        Ok(runs)
    }
}

impl Read {
    fn is_current(&self, modified: Option<SystemTime>, now: SystemTime) -> bool {
        let had_settled =
            self.modified.is_some_and(|modified| self.at.duration_since(modified).is_ok_and(|age| age > SETTLED));
        let is_fresh = now.duration_since(self.at).is_ok_and(|age| age < FRESH);
        had_settled && is_fresh && modified == self.modified
    }
}

fn state(live: Option<&Live>) -> String {
    match live {
        Some(live) => format!("running, {} of {} cells finished", live.done + live.failed, live.pending),
        None => "not running".to_string(),
    }
}

/// The filter that selects the runs of experiment `name`, whatever is in the name.
fn filter_of(name: &str) -> String {
    format!("experiment(=\"{}\")", name.replace('\\', "\\\\").replace('"', "\\\""))
}

fn report_path(store: &Store) -> PathBuf {
    store.folder().join("report.html")
}

fn has_report(store: &Store) -> bool {
    report_path(store).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Filter;
    use crate::store::Artefacts;
    use crate::store::record::Record;

    #[test]
    fn new_runs_are_seen_and_names_stay_text() {
        let results = tempfile::tempdir().unwrap();
        let site = Site::new(results.path());
        let store = Store::new(results.path(), "x<b>");
        let _lock = store.lock().unwrap();
        let empty = site.experiment("x<b>").unwrap().unwrap();
        assert!(empty.contains("x&lt;b&gt;") && !empty.contains("x<b>"), "{empty}");
        let mut record = Record::sample("", "qdrop", "W2A4", 1).failed("<script>alert(1)</script>");
        record.cell.variant = Some("<img src=x onerror=alert(1)>".into());
        let record = record.storable();
        let id = &record.run_id;
        let artefacts = Artefacts { log: Some("<script>log</script>".into()), ..Artefacts::default() };
        store.write_run(&record, "", &artefacts).unwrap();
        let pages = [site.experiment("x<b>"), site.run("x<b>", id)].map(|page| page.unwrap().unwrap());
        for page in &pages {
            assert!(page.contains("&lt;script&gt;") && page.contains("&lt;img"), "{page}");
            assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
        }
        assert_eq!(site.run("x<b>", "run-2").unwrap(), None);
        let state: serde_json::Value = serde_json::from_slice(&site.state().unwrap()).unwrap();
        assert_eq!((&state[0]["failed"], &state[0]["live"]), (&1.into(), &serde_json::Value::Null));
    }

    #[test]
    fn what_was_read_lasts_until_its_folder_changes() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let before = |seconds| Some(at - Duration::from_secs(seconds));
        let runs = Arc::new(Runs::new(vec![], vec![]));
        let read = |modified| Read { at, modified, runs: runs.clone() };
        let soon = at + Duration::from_secs(5);
        assert!(read(before(10)).is_current(before(10), soon));
        assert!(!read(before(10)).is_current(before(0), soon));
        assert!(!read(before(10)).is_current(before(10), at + FRESH));
        assert!(!read(before(1)).is_current(before(1), soon));
        assert!(!read(None).is_current(None, soon));
    }

    #[test]
    fn the_filter_of_an_experiment_selects_it_whatever_it_is_called() {
        let stored = |name: &str| Stored::read(name, PathBuf::new(), Record::sample("x", "qdrop", "W2A2", 0));
        let names = ["x", "X", "x*", "a \"b\" \\", "/x/", "(x) | y & !z", "<b>", "ü", " x "];
        for name in names {
            let selected = Filter::parse(&filter_of(name)).unwrap().select(names.map(stored).to_vec()).unwrap();
            assert_eq!(selected.iter().map(|run| run.experiment.as_str()).collect::<Vec<_>>(), [name]);
        }
        let results = tempfile::tempdir().unwrap();
        let name = "<b>\"'&";
        let _lock = Store::new(results.path(), name).lock().unwrap();
        let page = Site::new(results.path()).experiment(name).unwrap().unwrap();
        assert!(page.contains("/compare?filter=experiment%28%3D%22%3Cb%3E%5C%22%27%26%22%29\""), "{page}");
    }
}
