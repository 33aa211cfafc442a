//! The runs of all experiments together.

use super::record::Record;
use super::{Store, experiments};
use crate::error::{Error, Result};
use crate::experiment::suggest;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A stored run and where it is.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Name of the experiment's folder, which its owner may have renamed since the run.
    pub experiment: String,
    pub folder: PathBuf,
    pub record: Record,
}

impl Stored {
    /// What filters of stored runs select by: every field of the cell by its dotted key, and `run`, `experiment`, `status`
    /// and `revision` (the method's).
    pub fn fields(&self) -> BTreeMap<String, String> {
        let mut fields = self.record.cell.fields();
        fields.insert("run".to_string(), self.record.run_id.clone());
        fields.insert("experiment".to_string(), self.experiment.clone());
        fields.insert("status".to_string(), self.record.status.to_string());
        fields.insert("revision".to_string(), self.record.method_revision.to_string());
        fields
    }

    /// What was measured, by the names that [`Collection::sort`] knows; a failed run lacks some.
    fn measures(&self) -> [(&'static str, Option<f64>); 8] {
        let (cost, metrics) = (&self.record.cost, self.record.metrics.as_ref());
        [
            ("test", metrics.map(|metrics| metrics.test_top1)),
            ("calib", metrics.map(|metrics| metrics.calib_top1)),
            ("gap", metrics.map(|metrics| metrics.calib_top1 - metrics.test_top1)),
            ("full-precision", metrics.map(|metrics| metrics.fp_test_top1)),
            ("wall", Some(cost.wall_s)),
            ("cpu", Some(cost.cpu_s)),
            ("memory", cost.peak_memory_bytes.map(|bytes| bytes as f64)),
            ("started", Some(self.record.provenance.started_unix_s as f64)),
        ]
    }
}

/// What is stored under a folder of results.
#[derive(Debug, Default)]
pub struct Collection {
    /// By experiment, then run id.
    pub runs: Vec<Stored>,
    /// Folders that hold no readable record, and why.
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
    fn of_text(text: Option<&String>) -> Self {
        match text {
            None => SortKey::Missing,
            Some(text) => match text.parse() {
                Ok(number) => SortKey::Number(number),
                Err(_) => SortKey::Text(text.clone()),
            },
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
    /// Sorts by a field of the runs or by what was measured, from small to large; runs that are equal keep their order.
    ///
    /// Errors: a key that no run has.
    pub fn sort(&mut self, key: &str) -> Result<()> {
        let measured = self.runs.first().map(|run| run.measures().map(|(name, _)| name)).unwrap_or_default();
        let keys: Vec<SortKey> = match measured.iter().position(|name| *name == key) {
            Some(index) => {
                let value = |run: &Stored| run.measures()[index].1;
                self.runs.iter().map(|run| value(run).map_or(SortKey::Missing, SortKey::Number)).collect()
            }
            None => self.runs.iter().map(|run| SortKey::of_text(run.fields().get(key))).collect(),
        };
        if keys.iter().all(|key| matches!(key, SortKey::Missing)) && !measured.contains(&key) && key != "variant" {
            let fields = self.runs.first().map(Stored::fields).unwrap_or_default();
            let known: Vec<&str> = measured.into_iter().chain(fields.keys().map(String::as_str)).collect();
            return Err(Error::Usage(format!("--sort: there is no key {key:?}; {}", suggest(key, &known))));
        }
        let mut keyed: Vec<(SortKey, Stored)> = keys.into_iter().zip(std::mem::take(&mut self.runs)).collect();
        keyed.sort_by(|(a, _), (b, _)| a.compare(b));
        self.runs = keyed.into_iter().map(|(_, run)| run).collect();
        Ok(())
    }
}

/// Reads every run under `results`. Damaged ones do not keep others from being read.
pub fn scan_all(results: &Path) -> Result<Collection> {
    let mut all = Collection::default();
    for experiment in experiments(results)? {
        let store = Store::new(results, &experiment);
        let scan = store.scan()?;
        all.broken.extend(scan.broken);
        all.runs.extend(scan.records.into_iter().map(|record| Stored {
            experiment: experiment.clone(),
            folder: store.run_folder(&record.run_id),
            record,
        }));
    }
    Ok(all)
}
