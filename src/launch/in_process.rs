//! The launcher that computes in this process: one cell after the other by each of its workers.

use super::inputs::{Inputs, Loader};
use super::launcher::{Launcher, Watch, share};
use super::message::{Ended, Job, What};
use super::notes::Notes;
use super::partial::{Checkpoints, Partial};
use super::ranges::computed_on;
use super::run_cell::{CellResult, Resources, run_cell};
use super::usage::Stopwatch;
use crate::disk::foreign::caught;
use crate::error::{Error, Result};
use crate::store::record::Provenance;
use crate::store::{Artefacts, ModelFiles, Run, RunOfModel, transform_file};
use ptq::device_error::Left;
use ptq::quantize::resume::TrainedUnits;
use ptq::recon::event::Control;
use rayon::ThreadPool;
use tracing::info_span;

/// Workers that run cells at the same time. Results do not depend on their number or that of their threads.
pub struct InProcess<'a> {
    pub workers: Vec<Worker<'a>>,
    pub resources: &'a Resources,
    /// `None`: runs that are interrupted leave nothing.
    pub checkpoints: Option<Checkpoints>,
}

/// One of those that run cells at the same time.
pub struct Worker<'a> {
    /// Of the device that it computes on.
    pub loader: &'a mut Loader,
    /// Threads of its own; `None`: those of the process.
    pub threads: Option<ThreadPool>,
}

impl<'a> Worker<'a> {
    /// Computes with all threads of the process.
    pub fn with_all_threads(loader: &'a mut Loader) -> Self {
        Self { loader, threads: None }
    }
}

impl Launcher for InProcess<'_> {
    fn launch(&mut self, jobs: &[Job], watch: &Watch) -> Result<()> {
        let (resources, is_beside_others, checkpoints) =
            (self.resources, self.workers.len() > 1, self.checkpoints.as_ref());
        share(jobs, &mut self.workers, watch, |Worker { loader, threads }, job| {
            let mut run = || -> Result<bool> {
                let device = loader.device_name();
                let load = || loader.inputs(&job.cell);
                let resources = (resources, checkpoints, is_beside_others);
                let Some((mut run, left)) = run_job(job, &device, load, resources, watch) else {
                    return Ok(false);
                };
                run.record.weights_source = loader.weights_source(&job.cell);
                // Cells that a dead device would only fail are left for the next start.
                (watch.run)(run).map(|()| left != Left::Nothing)
            };
            match threads {
                Some(threads) => threads.install(run),
                None => run(),
            }
        })
    }
}

/// Runs one cell on `device` from what `load` gives, going on from what an earlier attempt left of it, beside others if so, and says what it leaves of
/// the device; `None` if it was interrupted.
fn run_job(
    job: &Job,
    device: &str,
    load: impl FnOnce() -> Result<Inputs>,
    (resources, checkpoints, is_beside_others): (&Resources, Option<&Checkpoints>, bool),
    watch: &Watch,
) -> Option<(Run, Left)> {
    let _span = info_span!("cell", name = %job.run_id).entered();
    (watch.event)(job.event(What::Started));
    let provenance = Provenance::now(device, rayon::current_num_threads(), resources.eval_batch, &job.grid);
    let stopwatch = if is_beside_others { Stopwatch::beside_others() } else { Stopwatch::start() };
    let notes = Notes::start(&job.run_id);
    let observe = |event| {
        notes.note(&event);
        (watch.event)(job.event(What::Progress(event)));
    };
    let control = Control { observe: &observe, cancelled: watch.cancelled };
    let mut hashes = None;
    let mut cost = None;
    let result = guarded(|| {
        let inputs = info_span!("inputs").in_scope(load)?;
        hashes = Some(inputs.hashes.clone());
        job.check_loaded(&inputs.hashes)?;
        let on = computed_on(&inputs.calib.images);
        let partial = checkpoints.map(|checkpoints| Partial::new(checkpoints, &job.run_id, &on, &stopwatch));
        let earlier = partial.as_ref().map(|partial| partial as &dyn TrainedUnits);
        let result = run_cell(&job.cell, &inputs, resources, job.keep, earlier, &control);
        cost = partial.map(|partial| partial.cost());
        result.and_then(|result| Ok((files(job, &inputs, &result)?, result)))
    });
    let left = result.as_ref().err().and_then(Error::of_device).map_or(Left::Usable, |error| error.left);
    let (result, left_over) = match result {
        Err(Error::Ptq(ptq::Error::Interrupted)) => return None,
        Err(error) => (Err(error.to_string()), Artefacts::default()),
        Ok((files, result)) => {
            let artefacts = Artefacts {
                predictions: Some(result.predictions),
                pictures: result.pictures,
                layers: Some(result.diagnosis),
                ..files
            };
            (Ok((result.metrics, result.preprocess)), artefacts)
        }
    };
    let cost = cost.unwrap_or_else(|| stopwatch.cost());
    let record = job.record(Ended { hashes, result, cost, provenance });
    Some((notes.run(record, left_over), left))
}

/// The networks that `result` leaves, as files.
fn files(job: &Job, inputs: &Inputs, result: &CellResult) -> Result<Artefacts> {
    let model = result.model.as_ref().map(|saved| {
        let run = RunOfModel {
            run_id: job.run_id.clone(),
            cell: job.cell.clone(),
            hashes: inputs.hashes.clone(),
            data_source: job.data_source.clone(),
        };
        ModelFiles::new(saved, &result.preprocess, run)
    });
    let transform = result.transform.as_ref().map(|tensors| transform_file(tensors, &job.run_id));
    Ok(Artefacts { model: model.transpose()?, transform: transform.transpose()?, ..Artefacts::default() })
}

/// What `work` gives. A panic in it is a bug, but one cell's bug: as an error it does not end a night's sweep.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(work).unwrap_or_else(|text| Err(Error::Panicked(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Hashes;
    use crate::hub::Hub;
    use crate::launch::Event;
    use candle_core::Device;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    /// The run of `job` from what `load` gives, and its events.
    fn run(job: &Job, load: impl FnOnce() -> Result<Inputs>) -> (Run, Vec<Event>) {
        let (folder, events) = (tempfile::tempdir().unwrap(), Mutex::new(Vec::new()));
        let resources = Resources::new(folder.path(), u64::MAX);
        let watch = Watch {
            claim: &|_| Ok(true),
            event: &|event| events.lock().unwrap().push(event),
            run: &|_| Ok(()),
            cancelled: &AtomicBool::new(false),
        };
        let (run, left) = run_job(job, "cpu", load, (&resources, None, false), &watch).unwrap();
        assert_eq!(left, Left::Usable);
        (run, events.into_inner().unwrap())
    }

    #[test]
    fn a_panic_while_images_are_decoded_is_a_recorded_failure() {
        let job = Job::sample();
        let (run, events) = run(&job, || panic!("no such pixel"));
        let error = run.record.error.unwrap();
        assert!(error.contains("the cell panicked: no such pixel"), "{error}");
        assert_eq!((run.record.run_id, run.record.hashes), (job.run_id.clone(), job.hashes.clone()));
        assert_eq!(events, [job.event(What::Started)]);
        assert!(run.artefacts.log.unwrap().contains("failed: the cell panicked"));
    }

    #[test]
    fn inputs_that_are_not_those_planned_are_a_failure_whose_record_has_the_hashes_of_what_was_loaded() {
        let job = Job::sample();
        let mut loader = Loader::new(&Device::Cpu, Hub::silent());
        let loaded: Hashes = loader.hashes(&job.cell).unwrap();
        let (run, _) = run(&job, || loader.inputs(&job.cell));
        let error = run.record.error.unwrap();
        assert!(error.contains("the weights changed after the run was planned: SHA-256 aa then"), "{error}");
        assert_eq!(run.record.hashes, loaded);
        assert!(run.record.hashes != job.hashes && run.record.metrics.is_none());
    }
}
