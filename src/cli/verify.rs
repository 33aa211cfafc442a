//! `harness verify`.

use super::Exit;
use super::device::device;
use super::progress::Progress;
use super::reproduce::departures;
use super::session::{ResultsArgs, loader};
use super::signals::interruptible;
use super::stored;
use crate::error::{Error, Result};
use crate::experiment::{Keep, RunId};
use crate::launch::{Event, InProcess, Job, Loader, Others, Resources, Worker, run_grid, sensible_memory_bytes};
use crate::store::record::{Provenance, Record, Status};
use crate::store::{Predictions, Store, Stored};
use std::path::Path;
use std::sync::atomic::AtomicBool;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  harness verify resnet20-w2a2-genie-m-s0
  harness verify 'tag(paper)'

What runs share is not taken from the cache: full-precision accuracies and transform networks are made again too.
Exit codes: 0 all predictions are the same, 100 some differ or a run could not be made again, 106 interrupted.")]
pub struct Args {
    /// Run id, or the beginning of one; or a filter: all finished runs that it selects.
    #[arg(value_name = "RUN|FILTER")]
    query: String,
    /// Where to compute: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto", env = "HARNESS_DEVICE")]
    device: String,
    /// No progress.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    results: ResultsArgs,
}

/// Runs cells again in a temporary folder and compares the predicted classes with the stored ones.
pub fn verify(args: &Args) -> Result<Exit> {
    let device = device(&args.device)?;
    let runs = finished(args)?;
    let cancelled = interruptible()?;
    let folder = tempfile::tempdir().map_err(Error::io("cannot write into", &std::env::temp_dir()))?;
    let mut loader = loader(&device, args.quiet);
    let mut all_same = true;
    for run in &runs {
        say!("{}/{}", run.experiment, run.record.run_id);
        say!("  made by   {}", maker(&run.record.provenance));
        match again(run, folder.path(), &mut loader, &cancelled, args.quiet) {
            Ok((provenance, verdict)) => {
                say!("  again by  {}", maker(&provenance));
                say!("  {}", verdict.text());
                all_same &= verdict.is_same();
                let is_elsewhere = provenance.processor != run.record.provenance.processor;
                if !verdict.is_same() && is_elsewhere {
                    say!("  the processors are not the same: sums may differ in their last bits");
                }
            }
            Err(Error::Ptq(ptq::Error::Interrupted)) => return Err(Error::Ptq(ptq::Error::Interrupted)),
            Err(error) => {
                say!("  cannot be made again: {error}");
                all_same = false;
            }
        }
    }
    Ok(if all_same { Exit::Done } else { Exit::SomeFailed })
}

/// The runs asked for, failed ones left out. Errors: nothing but failed ones.
fn finished(args: &Args) -> Result<Vec<Stored>> {
    let results = &args.results.results;
    let runs = stored::queried(results, &args.query)?;
    let (done, failed): (Vec<Stored>, Vec<Stored>) =
        runs.into_iter().partition(|run| run.record.status == Status::Done);
    match done.is_empty() {
        true => {
            let names: Vec<&str> = failed.iter().take(4).map(|run| run.record.run_id.as_str()).collect();
            Err(Error::NothingMatched(format!(
                "failed runs have no predictions to compare: {}; `harness run GRID` tries them again",
                names.join(", ")
            )))
        }
        false => Ok(done),
    }
}

fn maker(provenance: &Provenance) -> String {
    format!(
        "harness {} ({}), {} with {} threads on {}",
        provenance.crate_version,
        provenance.git_revision,
        provenance.device,
        provenance.threads,
        provenance.processor.as_deref().unwrap_or("a processor that is not recorded")
    )
}

/// How many predictions differ; those that only one has do.
pub(super) fn differing(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).filter(|(a, b)| a != b).count() + a.len().abs_diff(b.len())
}

/// How two runs of a cell differ.
struct Verdict {
    /// Differing predictions, and all.
    test: (usize, usize),
    calib: (usize, usize),
    /// Test top-1, stored and now.
    top1: (f64, f64),
}

impl Verdict {
    fn between(stored: &Predictions, now: &Predictions, top1: (f64, f64)) -> Self {
        let of = |a: &[u32], b: &[u32]| (differing(a, b), a.len().max(b.len()));
        Self { test: of(&stored.test, &now.test), calib: of(&stored.calib, &now.calib), top1 }
    }

    fn is_same(&self) -> bool {
        self.test.0 == 0 && self.calib.0 == 0 && self.top1.0 == self.top1.1
    }

    fn text(&self) -> String {
        let (test, calib) = (self.test, self.calib);
        match self.is_same() {
            true => format!("the same: {} test and {} calibration predictions", test.1, calib.1),
            false => format!(
                "DIFFERENT: {} of {} test and {} of {} calibration predictions; test top-1 {:.2} % then, {:.2} % now",
                test.0,
                test.1,
                calib.0,
                calib.1,
                100.0 * self.top1.0,
                100.0 * self.top1.1
            ),
        }
    }
}

/// Runs the cell of `run` again under `folder`. Errors: what it was made from is not here; it fails now.
fn again(
    run: &Stored,
    folder: &Path,
    loader: &mut Loader,
    cancelled: &AtomicBool,
    quiet: bool,
) -> Result<(Provenance, Verdict)> {
    let stored = Predictions::read(&run.folder)?;
    run.record
        .check_predictions(&stored)
        .map_err(|problem| Error::Sanity(format!("its record is not that of its predictions: {problem}")))?;
    let cell = &run.record.cell;
    let hashes = loader.hashes(cell)?;
    let departures = departures(&run.record, Some(&hashes));
    if !departures.is_empty() {
        return Err(Error::Sanity(departures.join("; ")));
    }
    let store = Store::new(folder, &run.experiment);
    let _lock = store.lock()?;
    let revisions = run.record.made_with();
    let job = Job {
        run_id: RunId::new(cell, &hashes, &revisions).to_string(),
        experiment: run.experiment.clone(),
        grid: run.record.provenance.grid.clone(),
        cell: cell.clone(),
        hashes,
        revisions,
        data_source: loader.data_source(cell),
        keep: Keep::default(),
    };
    let progress = Progress::new(1, 0, quiet);
    let resources = Resources::new(&folder.join(".cache"), sensible_memory_bytes());
    let mut launcher =
        InProcess { workers: vec![Worker::with_all_threads(loader)], resources: &resources, checkpoints: None };
    let observe = |event: &Event| progress.show(event);
    let outcome =
        run_grid(std::slice::from_ref(&job), &mut launcher, &store, &observe, (cancelled, None), Others::Await);
    progress.finish();
    if outcome?.left > 0 {
        return Err(Error::Ptq(ptq::Error::Interrupted));
    }
    let now = store.scan()?.records.into_iter().find(|record| record.run_id == run.record.run_id);
    let Some(now) = now else {
        return Err(Error::Sanity("it left no record".to_string()));
    };
    if let Some(error) = &now.error {
        return Err(Error::Sanity(format!("it fails now: {error}")));
    }
    let predictions = Predictions::read(&store.run_folder(&job.run_id))?;
    let top1 = |record: &Record| record.metrics.as_ref().map_or(f64::NAN, |metrics| metrics.test_top1);
    Ok((now.provenance.clone(), Verdict::between(&stored, &predictions, (top1(&run.record), top1(&now)))))
}
