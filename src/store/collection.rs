//! The runs of all experiments together, and what filters and lists know of each.

use super::annotations::Annotations;
use super::record::{Record, Status};
use super::time::utc;
use super::{Store, experiments};
use crate::data;
use crate::data::preprocess::Preprocess;
use crate::error::{Error, Result};
use crate::experiment::facts;
use crate::experiment::filter::{Kind, Subject, known, vocabulary};
use crate::experiment::revisions::{Difference, Revisions};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::path::{Path, PathBuf};

/// A stored run and where it is.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Name of the experiment's folder, which its owner may have renamed since the run.
    pub experiment: String,
    pub folder: PathBuf,
    pub record: Record,
    pub annotations: Annotations,
}

impl Stored {
    /// `record` as it lies in `folder`, with its notes and tags.
    pub fn read(experiment: &str, folder: PathBuf, record: Record) -> Self {
        let annotations = Annotations::read(&folder);
        Self { experiment: experiment.to_string(), folder, record, annotations }
    }

    /// How its images were preprocessed: as its record says, or in old ones as its data set does by default.
    pub fn preprocess(&self) -> Option<Preprocess> {
        let of_data_set = || data::find(&self.record.cell.dataset).map(|dataset| (dataset.preprocess)());
        self.record.preprocess.clone().or_else(of_data_set)
    }

    /// The revisions of the method and of modules that this harness has others of; a method that it does not know is at 0.
    pub fn outdated(&self) -> Vec<Difference> {
        self.record.made_with().differences(&Revisions::of(&self.record.cell))
    }

    /// `done`, `failed`, or `stale`: done by another revision of the method, or of a module that it uses.
    pub fn status(&self) -> &'static str {
        match self.record.status {
            Status::Failed => "failed",
            Status::Done if !self.outdated().is_empty() => "stale",
            Status::Done => "done",
        }
    }

    /// When the run began, as `2026-11-23T13:03:04Z`.
    pub fn started(&self) -> String {
        utc(self.record.provenance.started_unix_s)
    }
}

impl Subject for Stored {
    const CALLED: &'static str = "stored runs";

    fn knows(_: &str) -> bool {
        true
    }

    fn values(&self, name: &str) -> Option<Vec<String>> {
        if let Some(fact) = facts::find(name) {
            return Some(self.record.fact(fact).map(|value| value.to_string()).into_iter().collect());
        }
        let Record { provenance, .. } = &self.record;
        Some(match name {
            "run" => vec![self.record.run_id.clone()],
            "experiment" => vec![self.experiment.clone()],
            "status" => vec![self.status().to_string()],
            "revision" => vec![self.record.method_revision.to_string()],
            "tag" => self.annotations.tags.iter().cloned().collect(),
            "note" => self.annotations.notes.iter().map(|note| note.text.clone()).collect(),
            "error" => self.record.error.iter().cloned().collect(),
            "started" => vec![self.started()],
            "device" => vec![provenance.device.clone()],
            "processor" => provenance.processor.iter().cloned().collect(),
            "git" => vec![provenance.git_revision.clone()],
            "grid" => vec![provenance.grid.clone()],
            name => self.record.cell.field_values(name),
        })
    }
}

/// What is stored under a folder of results.
#[derive(Debug, Default)]
pub struct Collection {
    /// By experiment, then run id.
    pub runs: Vec<Stored>,
    /// Folders that hold no readable record, or one that cannot be true, and why.
    pub broken: Vec<(PathBuf, String)>,
}

/// What a run is sorted by: runs without a value come first, then numbers, then texts.
#[derive(Clone, Debug)]
enum SortKey {
    Missing,
    Number(f64),
    Text(String),
}

impl SortKey {
    fn of_text(text: String) -> Self {
        match text.parse() {
            Ok(number) => SortKey::Number(number),
            Err(_) => SortKey::Text(text),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        let rank = |key: &Self| match key {
            SortKey::Missing => 0,
            SortKey::Number(_) => 1,
            SortKey::Text(_) => 2,
        };
        match (self, other) {
            (SortKey::Number(a), SortKey::Number(b)) => a.total_cmp(b),
            (SortKey::Text(a), SortKey::Text(b)) => a.cmp(b),
            (a, b) => rank(a).cmp(&rank(b)),
        }
    }
}

impl Collection {
    /// Sorts by anything that filters know, from small to large; runs that are equal keep their order.
    ///
    /// Errors: an unknown `name`.
    pub fn sort(&mut self, name: &str) -> Result<()> {
        check_name("--sort", name)?;
        let key = |run: &Stored| match run.values(name).unwrap_or_default() {
            values if values.is_empty() => SortKey::Missing,
            values => SortKey::of_text(values.join(", ")),
        };
        let mut keyed: Vec<(SortKey, Stored)> =
            std::mem::take(&mut self.runs).into_par_iter().map(|run| (key(&run), run)).collect();
        keyed.sort_by(|(a, _), (b, _)| a.compare(b));
        self.runs = keyed.into_iter().map(|(_, run)| run).collect();
        Ok(())
    }
}

/// The kind of what filters call `name`. Errors: an unknown name, given with `option`.
pub fn check_name(option: &str, name: &str) -> Result<Kind> {
    vocabulary().get(name).copied().ok_or_else(|| {
        let help = known(name, |_| true);
        Error::Usage(format!("{option}: there is no key {name:?}; {help}"))
    })
}

/// Reads every run under `results`. Damaged ones do not keep others from being read.
pub fn scan_all(results: &Path) -> Result<Collection> {
    let mut all = Collection::default();
    for experiment in experiments(results)? {
        let store = Store::new(results, &experiment);
        let scan = store.scan()?;
        all.broken.extend(scan.broken);
        let stored = |record: Record| Stored::read(&experiment, store.run_folder(&record.run_id), record);
        all.runs.par_extend(scan.records.into_par_iter().map(stored));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::filter::run_predicates;

    #[test]
    fn every_predicate_of_runs_is_answered() {
        let mut record = Record::sample("x", "qdrop", "W2A2", 3);
        record.error = Some("why".into());
        let mut run =
            Stored { experiment: "a".into(), folder: PathBuf::new(), record, annotations: Annotations::default() };
        run.annotations.tags.insert("paper".into());
        run.annotations.notes.push(crate::store::annotations::Note { at_unix_s: 0, text: "look".into() });
        for (name, kind, _) in run_predicates() {
            let values = run.values(name).unwrap();
            assert_eq!(values.len(), 1, "{name}");
            let is_number = matches!(kind, Kind::Number | Kind::Fraction);
            assert!(!is_number || values[0].parse::<f64>().is_ok(), "{name}: {values:?}");
        }
    }

    #[test]
    fn a_run_of_another_revision_is_stale_unless_it_failed() {
        let status = |record: Record| Stored::read("a", PathBuf::new(), record).status();
        let record = Record::sample("x", "qdrop", "W2A2", 3);
        let now = ptq::methods::find("qdrop").unwrap().revision;
        let of = |revision: u32| Record { method_revision: revision, ..record.clone() };
        assert_eq!((status(of(now)), status(of(now + 1))), ("done", "stale"));
        assert_eq!(status(of(now + 1).failed("why")), "failed");
        let of_module = |name: &str| Record { revisions: [(name.to_string(), 9)].into(), ..of(now) };
        assert_eq!(status(of_module("ops")), "stale");
        let mut unknown = of(now);
        unknown.cell.method = "gone".into();
        assert_eq!(status(unknown), "stale");
    }
}
