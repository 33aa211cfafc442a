//! What travels between those who ask for runs and what computes them.

use crate::data::preprocess::Preprocess;
use crate::disk::atomic;
use crate::disk::foreign::{LARGEST_TEXT, read};
use crate::error::{Error, Result};
use crate::experiment::{Cell, Hashes, Keep, Revisions, RunId};
use crate::store::record::{Cost, FORMAT, Metrics, Provenance, Record, Status};
use ptq::recon::event::Event as Progress;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A run to be made: all that another process needs to know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub run_id: String,
    pub experiment: String,
    /// The grid file, as its record will name it.
    pub grid: String,
    pub cell: Cell,
    /// Of the inputs as they were when the run got its id.
    pub hashes: Hashes,
    /// Of what computes it.
    pub revisions: Revisions,
    /// Where data on the Hub were found, with the commit: its branch may move until the job runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_source: Option<String>,
    /// What it leaves beside its record.
    #[serde(default, skip_serializing_if = "Keep::is_nothing")]
    pub keep: Keep,
}

/// Something happened to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub run_id: String,
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    Started,
    Progress(Progress),
    /// Another process of `host` has it: this one waits until it is over, or that one dead.
    Elsewhere {
        host: String,
        process: u32,
    },
    /// It is over, and this is stored of it.
    Finished(Box<Record>),
}

/// How a run ended, for its record.
pub(super) struct Ended {
    /// Of the inputs as they were loaded; `None` if they could not be.
    pub hashes: Option<Hashes>,
    pub result: Result<(Metrics, Preprocess), String>,
    pub cost: Cost,
    pub provenance: Provenance,
}

impl Job {
    /// The job in the file `path`.
    ///
    /// Errors: no job; one whose id this harness would not give it, because it was edited or is another version's.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read("cannot read job", path, LARGEST_TEXT)?;
        let job: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Usage(format!("{} is no job: {error}", path.display())))?;
        let id = RunId::new(&job.cell, &job.hashes, &job.revisions).to_string();
        match id == job.run_id {
            true => Ok(job),
            false => Err(Error::Usage(format!(
                "{}: run_id: the job is called {}, but what it says makes {id}; have the harness that runs it write it",
                path.display(),
                job.run_id
            ))),
        }
    }

    /// Writes it where [`Job::read`] finds it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::content(path, format!("the job cannot be written: {error}")))?;
        atomic::write_unsynced(path, &json)
    }

    pub fn event(&self, what: What) -> Event {
        Event { run_id: self.run_id.clone(), what }
    }

    /// Errors: inputs other than those that gave the run its id.
    pub(super) fn check_loaded(&self, loaded: &Hashes) -> Result<()> {
        let (then, now) = (&self.hashes, loaded);
        for (what, then, now) in [
            ("weights", &then.weights, &now.weights),
            ("calibration images", &then.calib, &now.calib),
            ("test images", &then.test, &now.test),
        ] {
            if then != now {
                return Err(Error::Sanity(format!(
                    "the {what} changed after the run was planned: SHA-256 {then:.16} then, {now:.16} now; run the grid again"
                )));
            }
        }
        Ok(())
    }

    /// The record of a run that ended so; nothing is known yet of where its weights came from.
    pub(super) fn record(&self, ended: Ended) -> Record {
        let Ended { hashes, result, cost, provenance } = ended;
        let (result, error) = match result {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        let (metrics, preprocess) = result.unzip();
        Record {
            format: FORMAT,
            run_id: self.run_id.clone(),
            experiment: self.experiment.clone(),
            cell: self.cell.clone(),
            method_revision: self.revisions.method,
            revisions: self.revisions.modules.clone(),
            hashes: hashes.unwrap_or_else(|| self.hashes.clone()),
            weights_source: None,
            data_source: self.data_source.clone(),
            status: if error.is_none() { Status::Done } else { Status::Failed },
            error,
            metrics,
            cost,
            provenance,
            preprocess,
        }
    }
}

#[cfg(test)]
impl Job {
    /// Of the cell of [`Record::sample`].
    pub(super) fn sample() -> Self {
        let record = Record::sample("", "rtn", "W4A4", 0);
        let revisions = record.made_with();
        let run_id = RunId::new(&record.cell, &record.hashes, &revisions).to_string();
        let (experiment, grid) = ("x".to_string(), "x.toml".to_string());
        let (cell, hashes, keep) = (record.cell, record.hashes, Keep::default());
        Self { run_id, experiment, grid, cell, hashes, revisions, data_source: None, keep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptq::recon::event::Point;

    #[test]
    fn jobs_travel_in_files_and_edited_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job.json");
        let mut job = Job::sample();
        job.write(&path).unwrap();
        assert_eq!(Job::read(&path).unwrap(), job);
        job.cell.seed = 9;
        job.write(&path).unwrap();
        assert!(Job::read(&path).unwrap_err().to_string().contains("the job is called resnet20-w4a4-rtn-s0"));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(Job::read(&path), Err(Error::Usage(_))));
    }

    #[test]
    fn events_are_lines_of_json_and_keep_numbers_that_json_has_not() {
        let point = Point { regulariser: Some(f64::NEG_INFINITY), ..Point::of_loss(3, 0.1) };
        for progress in [
            Progress::Unit { index: 0, count: 2, name: "stem\n".into() },
            Progress::Step { phase: "weights".into(), iteration: 1, iterations: 2, loss: f64::INFINITY },
            Progress::Point(point),
            Progress::PhaseEnded { wall_s: 2.0 },
        ] {
            let event = Job::sample().event(What::Progress(progress));
            let line = serde_json::to_string(&event).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
        }
        let event = Job::sample().event(What::Progress(Progress::Point(Point::of_loss(1, f64::NAN))));
        let line = serde_json::to_string(&event).unwrap();
        let What::Progress(Progress::Point(point)) = serde_json::from_str::<Event>(&line).unwrap().what else {
            panic!("{line}")
        };
        assert!(point.loss.is_nan() && point.regulariser.is_none());
    }
}
