//! What was submitted: which cells, how, and as which jobs; `results/<experiment>/slurm/submission-N.json`, beside its script and the logs of its tasks.
//!
//! It is written before the first of its tasks can begin, and says to them which cells are theirs: whatever becomes of the grid file, and of what a
//! filter selects, in the days that a job waits. A cell that failed since is not tried again by the next task.

use super::Engine;
use crate::disk::atomic;
use crate::disk::foreign::{LARGEST_TEXT, read};
use crate::error::{Error, Result};
use crate::store::record::{Record, Status};
use crate::store::{Store, since_1970};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Version of [`Submission`]'s JSON.
const FORMAT: u32 = 1;

/// What was submitted at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    pub format: u32,
    /// Seconds since 1970 (UTC).
    pub submitted_unix_s: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub engine: Engine,
    pub grid: PathBuf,
    /// What the command line changed in it.
    pub set: Vec<String>,
    pub tf32: bool,
    pub smoke: bool,
    pub many_cells: bool,
    /// Tasks at most, if that was said.
    pub workers: Option<usize>,
    /// Further arguments of its workers.
    pub run_arguments: Vec<String>,
    /// Run ids.
    pub cells: BTreeSet<String>,
    /// Its jobs, as they were submitted.
    pub arrays: Vec<Array>,
}

fn is_default(engine: &Engine) -> bool {
    *engine == Engine::default()
}

/// A job array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Array {
    pub job: String,
    pub tasks: usize,
}

/// How far a submitted cell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellState {
    Done,
    /// It failed since it was submitted.
    Failed,
    Running,
    Pending,
}

impl Submission {
    /// Of `cells`, now; not of any job yet.
    pub fn new(grid: PathBuf, cells: BTreeSet<String>) -> Self {
        Self {
            format: FORMAT,
            submitted_unix_s: since_1970().as_secs(),
            engine: Engine::default(),
            grid,
            set: Vec::new(),
            tf32: false,
            smoke: false,
            many_cells: false,
            workers: None,
            run_arguments: Vec::new(),
            cells,
            arrays: Vec::new(),
        }
    }

    /// The folder of submissions, scripts and logs of an experiment.
    pub fn folder(store: &Store) -> PathBuf {
        store.folder().join("slurm")
    }

    /// Errors: no such file; no submission.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |problem: String| Error::content(path, problem);
        let json = read("cannot read submission", path, LARGEST_TEXT)?;
        let submission: Self =
            serde_json::from_slice(&json).map_err(|error| wrong(format!("no submission: {error}")))?;
        match submission.format == FORMAT {
            true => Ok(submission),
            false => Err(wrong(format!("its format is {}, and this harness reads {FORMAT}", submission.format))),
        }
    }

    /// Errors: it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|error| Error::content(path, error.to_string()))?;
        atomic::write(path, &json)
    }

    /// The submissions of an experiment, the oldest first. Errors: one that cannot be read.
    pub fn all(store: &Store) -> Result<Vec<Self>> {
        let paths = paths(&Self::folder(store))?;
        paths.into_iter().map(|(_, path)| Self::read(&path)).filter(|read| !is_being_made(read)).collect()
    }

    /// Where the next one goes.
    pub fn next_path(store: &Store) -> Result<PathBuf> {
        let folder = Self::folder(store);
        let last = paths(&folder)?.last().map_or(0, |(number, _)| *number);
        Ok(folder.join(format!("submission-{}.json", last + 1)))
    }

    /// The same, taken: nobody else gets it.
    pub fn take_path(store: &Store) -> Result<PathBuf> {
        let folder = Self::folder(store);
        std::fs::create_dir_all(&folder).map_err(Error::io("cannot make folder", &folder))?;
        loop {
            let path = Self::next_path(store)?;
            match File::create_new(&path) {
                Ok(_) => return Ok(path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io("cannot write", &path)(error)),
            }
        }
    }

    /// Its jobs, each with how many tasks it has.
    pub fn jobs(&self) -> Vec<(&str, usize)> {
        self.arrays.iter().map(|array| (array.job.as_str(), array.tasks)).collect()
    }

    /// `job 12`, `jobs 12, 13`.
    pub fn named_jobs(&self) -> String {
        let jobs: Vec<&str> = self.arrays.iter().map(|array| array.job.as_str()).collect();
        format!("job{} {}", if jobs.len() == 1 { "" } else { "s" }, jobs.join(", "))
    }

    /// Whether the tasks of this submission have nothing more to do for a cell of which `record` is stored.
    pub fn is_over(&self, record: &Record) -> bool {
        record.status == Status::Done || record.provenance.started_unix_s > self.submitted_unix_s
    }

    /// How far the cell `run_id` is.
    pub fn state(&self, run_id: &str, store: &Store) -> CellState {
        match store.record(run_id).filter(|record| self.is_over(record)) {
            Some(record) if record.status == Status::Done => CellState::Done,
            Some(_) => CellState::Failed,
            None if store.maker(run_id).is_some() => CellState::Running,
            None => CellState::Pending,
        }
    }
}

/// A file without content is that of a submission which is being made, or was never made.
fn is_being_made(read: &Result<Submission>) -> bool {
    matches!(read, Err(Error::Content { path, .. }) if std::fs::metadata(path).is_ok_and(|file| file.len() == 0))
}

/// The files of submissions by their numbers.
fn paths(folder: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("cannot read", folder)(error)),
    };
    let number = |path: PathBuf| {
        let number = path.file_name()?.to_str()?.strip_prefix("submission-")?.strip_suffix(".json")?.parse().ok()?;
        Some((number, path))
    };
    let mut paths: Vec<(u32, PathBuf)> = entries.flatten().filter_map(|entry| number(entry.path())).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submissions_are_numbered_and_what_is_no_submission_is_named() {
        let results = tempfile::tempdir().unwrap();
        let store = Store::new(results.path(), "x");
        assert_eq!(Submission::all(&store).unwrap(), []);
        let mut written = Vec::new();
        for number in 1..12 {
            let path = Submission::take_path(&store).unwrap();
            assert!(path.ends_with(format!("x/slurm/submission-{number}.json")), "{}", path.display());
            let mut submission = Submission::new("x.toml".into(), BTreeSet::from([format!("run-{number}")]));
            submission.arrays.push(Array { job: "12".into(), tasks: 3 });
            submission.write(&path).unwrap();
            written.push(submission);
        }
        // One that is being made counts for nobody yet.
        let path = Submission::take_path(&store).unwrap();
        assert_eq!(Submission::all(&store).unwrap(), written);
        std::fs::write(&path, "{}").unwrap();
        let error = Submission::all(&store).unwrap_err().to_string();
        assert!(error.contains("submission-12.json: no submission"), "{error}");
    }

    #[test]
    fn a_cell_that_failed_before_it_was_submitted_is_to_be_tried_again() {
        let results = tempfile::tempdir().unwrap();
        let store = Store::new(results.path(), "x");
        let submission = Submission::new("x.toml".into(), BTreeSet::new());
        let mut record = Record::sample("run", "rtn", "W2A2", 0);
        assert!(submission.is_over(&record));
        record.status = Status::Failed;
        for (started, is_over) in [(submission.submitted_unix_s - 1, false), (submission.submitted_unix_s + 1, true)] {
            record.provenance.started_unix_s = started;
            assert_eq!(submission.is_over(&record), is_over);
        }
        assert_eq!(submission.state("run", &store), CellState::Pending);
        std::fs::create_dir_all(results.path().join("x/runs")).unwrap();
        let claims = store.claims().unwrap();
        claims.ask("run").unwrap();
        assert_eq!(submission.state("run", &store), CellState::Running);
        claims.release("run");
        assert_eq!(submission.state("run", &store), CellState::Pending);
    }
}
