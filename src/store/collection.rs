//! The runs of all experiments together.

use super::record::Record;
use super::{Store, experiments};
use crate::error::Result;
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
}

/// What is stored under a folder of results.
#[derive(Debug, Default)]
pub struct Collection {
    /// By experiment, then run id.
    pub runs: Vec<Stored>,
    /// Folders that hold no readable record, and why.
    pub broken: Vec<(PathBuf, String)>,
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
