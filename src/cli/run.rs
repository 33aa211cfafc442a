//! `harness run`.

use super::Exit;
use super::bytes;
use super::cache_folder::CacheFolder;
use super::checkpoints::CheckpointArgs;
use super::device::{DeviceArgs, another};
use super::isolation::IsolationArgs;
use super::jobs;
use super::progress::Progress;
use super::session::{GridArgs, Session, loader_beside};
use super::signals::interruptible;
use super::track::{TrackArgs, say_tracked, warner};
use crate::cluster::Submission;
use crate::error::{Error, Result};
use crate::experiment::Keep;
use crate::export::mlflow::server::Server;
use crate::launch::{
    Checkpoints, Event, InProcess, Isolated, Job, Launcher, LiveWriter, Loader, Others, Outcome, Place, Resources,
    Worker, device_name, run_grid, sensible_bytes_on, thread_counts, thread_pools,
};
use crate::profile::Profile;
use crate::store::{Planned, State, has_model};
use crate::track::Tracker;
use candle_core::Device;
use ptq::methods;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    grid: GridArgs,
    #[command(flatten)]
    devices: DeviceArgs,
    #[command(flatten)]
    track: TrackArgs,
    /// How many cells to run at the same time on the CPU or on one GPU, with the same results, or `auto`: on the CPU as many as a short
    /// measurement finds fastest, and the memory holds, on a GPU one. The threads are divided among them.
    #[arg(long, value_name = "N|auto", default_value = "1", env = "HARNESS_JOBS", value_parser = jobs::parse, conflicts_with = "devices")]
    jobs: jobs::Wanted,
    /// How much of the activations of calibration images is kept in memory, such as 4GiB; the rest goes to a file in the cache
    /// folder, on a GPU to page-locked memory of the host first, with the same results [default: half of the free memory, on a
    /// GPU of its own].
    #[arg(long, value_name = "SIZE", env = "HARNESS_MEMORY", value_parser = bytes::parse)]
    memory: Option<u64>,
    #[command(flatten)]
    isolation: IsolationArgs,
    #[command(flatten)]
    checkpoints: CheckpointArgs,
    /// Stop when so many cells have failed one after the other.
    #[arg(long, value_name = "N")]
    max_consecutive_failures: Option<NonZeroUsize>,
    /// Stop when a cell has failed.
    #[arg(long, conflicts_with = "max_consecutive_failures")]
    fail_fast: bool,
    /// Print what would run, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Run the selected cells again even if they are stored.
    #[arg(long)]
    fresh: bool,
    /// Be one of several workers, as a task of a cluster is: take cells until all are over or with others, without waiting for these; who finds that all
    /// are over writes the report. With SUBMISSION, a file of `harness submit`, its cells alone, and none again that failed since.
    #[arg(long, value_name = "SUBMISSION", num_args = 0..=1, require_equals = true, conflicts_with_all = ["dry_run", "fresh", "profile"])]
    worker: Option<Option<PathBuf>>,
    /// Keep the quantized network of each cell in its run's folder (`save-model = true` in a grid): integer weights in
    /// model.safetensors, described by config.json; `harness evaluate` loads it, `harness export --onnx` translates it.
    #[arg(long)]
    save_model: bool,
    /// Keep the transform network, where a cell has one, in transform.safetensors, as its training for the last unit left it
    /// (`save-transform = true` in a grid).
    #[arg(long)]
    save_transform: bool,
    /// Say where the time went, per phase and per operation, on GPUs also how many kernels each launches (counted by CUPTI of the CUDA
    /// toolkit), and write a trace to FILE for https://ui.perfetto.dev or chrome://tracing [default: trace.json in the folder of the
    /// experiment's results].
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    profile: Option<Option<PathBuf>>,
    /// No progress, no table: errors and warnings only.
    #[arg(long, short)]
    quiet: bool,
}

impl Args {
    /// How many cells may fail one after the other.
    fn patience(&self) -> Option<NonZeroUsize> {
        if self.fail_fast { Some(NonZeroUsize::MIN) } else { self.max_consecutive_failures }
    }
}

/// Runs what is pending, then reports.
pub fn run(args: &Args) -> Result<Exit> {
    if args.dry_run {
        return say_what_would_run(args);
    }
    let submission = args.worker.as_ref().and_then(Option::as_ref).map(|path| Submission::read(path)).transpose()?;
    let devices = args.devices.open()?;
    let only = submission.as_ref().map(|submission| submission.cells.clone());
    let mut session = Session::open_quietly(&GridArgs { only, ..args.grid.clone() }, &devices[0], args.quiet)?;
    session.refuse_namesake()?;
    let keep = session.experiment.keep.or(Keep { model: args.save_model, transform: args.save_transform });
    let server = args.track.server(&session.experiment)?;
    let mut jobs = pending(&session, args.fresh, keep);
    if let Some(submission) = &submission {
        keep_to(submission, &session, &mut jobs)?;
    }
    if !args.quiet {
        warn_of_departures(&session);
        warn_of_lacking_models(&session, &jobs, keep);
    }
    let on_gpu = devices.iter().any(Device::is_cuda);
    let profile = args.profile.as_ref().map(|_| Profile::start(on_gpu)).transpose()?;
    let (outcome, tracker) = launch(args, &mut session, &devices, &jobs, server);
    let reports = outcome.is_ok() && args.worker.is_none();
    let stored = reports.then(|| reported(args, &session));
    // Whatever became of the grid, and after its report: what is sent last is sent meanwhile.
    let is_interrupted = outcome.as_ref().is_ok_and(|outcome| outcome.is_interrupted);
    if let Some((tracker, server)) = tracker {
        say_tracked(&tracker.finish(is_interrupted), &server, &args.grid.grid, args.quiet);
    }
    let (outcome, stored) = (outcome?, stored.transpose()?.unwrap_or_default());
    if args.worker.is_some() {
        return end_of_worker(args, outcome, jobs.len());
    }
    // Runs that somebody took away while others were made.
    let lost = (session.plan.len() - outcome.left).saturating_sub(stored);
    if let (Some(profile), Some(path)) = (profile, &args.profile) {
        let path = path.clone().unwrap_or_else(|| session.store.folder().join("trace.json"));
        profile.write_trace(&path)?;
        say!("{}\n{}", profile.summary(), path.display());
    }
    say_lost(&session, lost);
    let exit = ended(&outcome, jobs.len(), &args.grid.grid.display().to_string());
    Ok(if lost > 0 && exit == Exit::Done { Exit::SomeFailed } else { exit })
}

/// Writes the report, and says how many runs of the session are stored. Those who make other parts of the grid write into the same tables.
fn reported(args: &Args, session: &Session) -> Result<usize> {
    if args.grid.shard.is_none() {
        return super::report::write(session, args.quiet);
    }
    let all = Session::of_stored(&GridArgs { filter: None, shard: None, ..args.grid.clone() })?;
    super::report::write(&all, args.quiet)?;
    Ok(super::report::scan(session)?.records.len())
}

/// Leaves of `jobs` those whose cells `submission` has and that are not over. Errors: its cells are not in the grid any more.
fn keep_to(submission: &Submission, session: &Session, jobs: &mut Vec<Job>) -> Result<()> {
    let there: BTreeSet<String> = session.plan.iter().map(|planned| planned.id.to_string()).collect();
    let (submitted, grid) = (submission.cells.len(), session.experiment.path.display());
    match submission.cells.difference(&there).count() {
        0 => {}
        gone if gone < submitted => {
            tell!("warning: {gone} of {submitted} cells that were submitted are not in {grid} any more")
        }
        _ => {
            return Err(Error::NothingMatched(format!(
                "none of the {submitted} cells that were submitted is in {grid} any more, or their weights, data or revisions have changed; submit it again"
            )));
        }
    }
    let is_over = |job: &Job| session.store.record(&job.run_id).is_some_and(|record| submission.is_over(&record));
    jobs.retain(|job| !is_over(job));
    Ok(())
}

/// Writes the report of the whole grid if nobody has anything left to do, and says how this worker did: what others have or failed is theirs.
fn end_of_worker(args: &Args, outcome: Outcome, jobs: usize) -> Result<Exit> {
    let Outcome { left, elsewhere, failed_here, .. } = outcome;
    if left == 0 {
        let session = Session::of_stored(&GridArgs { filter: None, shard: None, ..args.grid.clone() })?;
        super::report::write(&session, true)?;
        tell!("all cells are over: report written to {}", session.store.folder().display());
    } else if elsewhere > 0 {
        tell!("{elsewhere} cells are left to the processes that have them");
    }
    let own = Outcome { left: left.saturating_sub(elsewhere), failed: failed_here, ..outcome };
    Ok(ended(&own, jobs, &args.grid.grid.display().to_string()))
}

/// Downloads no data for it.
fn say_what_would_run(args: &Args) -> Result<Exit> {
    args.devices.open()?;
    let mut session = Session::without_downloads(&args.grid)?;
    session.refuse_namesake()?;
    let to_run: Vec<&Planned> = to_run(&session, args.fresh).collect();
    to_run.iter().for_each(|planned| say!("{}", planned.id));
    say!("{} of {} cells would run", to_run.len(), session.plan.len());
    session.say_lacking()?;
    Ok(Exit::Done)
}

fn to_run(session: &Session, is_fresh: bool) -> impl Iterator<Item = &Planned> {
    session.plan.iter().filter(move |planned| is_fresh || planned.state != State::Done)
}

/// What is to run of the plan.
fn pending(session: &Session, is_fresh: bool, keep: Keep) -> Vec<Job> {
    let job = |planned: &Planned| {
        Some(Job {
            run_id: planned.id.to_string(),
            experiment: session.experiment.name.clone(),
            grid: session.experiment.path.display().to_string(),
            cell: planned.cell.clone(),
            hashes: planned.hashes.clone()?,
            revisions: planned.revisions.clone(),
            data_source: session.loader.data_source(&planned.cell),
            keep,
        })
    };
    to_run(session, is_fresh).filter_map(job).collect()
}

/// Has the jobs run, shows, publishes and tracks how far they are, and stores what comes; the tracker, with what it is called, still has
/// to finish.
fn launch(
    args: &Args,
    session: &mut Session,
    devices: &[Device],
    jobs: &[Job],
    server: Option<Server>,
) -> (Result<Outcome>, Option<(Tracker, String)>) {
    let joined = session.store.join();
    let stored = session.plan.len() - jobs.len();
    let progress = Arc::new(Progress::new(jobs.len(), stored, args.quiet));
    let tracker = server.filter(|_| joined.is_ok()).and_then(|server| {
        let shown = server.address().to_string();
        let warn = warner(progress.clone(), &server, &args.grid.grid);
        let started = Tracker::start(server, &session.store, jobs, warn);
        // No reason to lose a night's work.
        let started = started.inspect_err(|error| progress.warn(&format!("the grid is not tracked: {error}")));
        started.ok().map(|tracker| (tracker, shown))
    });
    let observe = |event: &Event| {
        if let Some((tracker, _)) = &tracker {
            tracker.note(event);
        }
    };
    let outcome = joined.and_then(|_lock| launch_observed(args, session, devices, jobs, (&progress, &observe)));
    (outcome, tracker)
}

/// The same, told to `observe` as well.
fn launch_observed(
    args: &Args,
    session: &mut Session,
    devices: &[Device],
    jobs: &[Job],
    (progress, observe): (&Progress, &(dyn Fn(&Event) + Sync)),
) -> Result<Outcome> {
    let cancelled = interruptible()?;
    let live = LiveWriter::new(jobs.len(), session.plan.len() - jobs.len());
    let observe = |event: &Event| {
        live.note(event);
        observe(event);
        progress.show(event);
    };
    let others = if args.worker.is_some() { Others::Leave } else { Others::Await };
    let first = jobs.first().map(|job| &job.cell);
    let count = devices.len().max(args.jobs.count(first, &mut session.loader, jobs.len(), (&cancelled, args.quiet))?);
    let run = |launcher: &mut dyn Launcher| {
        live.during(&session.store, || {
            run_grid(jobs, launcher, &session.store, &observe, (&cancelled, args.patience()), others)
        })
    };
    let checkpoints = args.checkpoints.in_folder(session.store.partial());
    let (outcome, published) = match args.isolation.isolates((devices, count), args.profile.is_some()) {
        true => run(&mut isolated(devices.iter().cycle().take(count), args, checkpoints)?),
        false => {
            let others = (1..count).map(|worker| {
                let device = devices.get(worker).cloned().map_or_else(|| another(&devices[0]), Ok)?;
                Ok(loader_beside(&session.loader, &device))
            });
            let mut others: Vec<Loader> = others.collect::<Result<_>>()?;
            let folder = CacheFolder::open()?;
            let resources = Resources::new(folder.path(), args.memory.unwrap_or_else(|| sensible_bytes(devices)));
            let workers = workers(&mut session.loader, &mut others)?;
            run(&mut InProcess { workers, resources: &resources, checkpoints: Some(checkpoints) })
        }
    };
    progress.finish();
    if let Err(error) = published {
        tell!("warning: `harness serve` could not follow this grid: {error}");
    }
    outcome
}

fn say_lost(session: &Session, lost: usize) {
    if lost > 0 {
        let runs = session.store.folder().join("runs");
        tell!("{lost} runs that were stored are not in {} any more; the same command makes them again", runs.display());
    }
}

/// Says what is left or failed.
fn ended(outcome: &Outcome, jobs: usize, grid: &str) -> Exit {
    if outcome.gave_up {
        tell!("{} cells failed, one too many after the other, and {} of {jobs} are left", outcome.failed, outcome.left);
        return Exit::SomeFailed;
    }
    if outcome.left > 0 && !outcome.is_interrupted {
        tell!(
            "{} cells failed and {} of {jobs} are left, since the device has stopped; the same command goes on from here",
            outcome.failed,
            outcome.left
        );
        return Exit::SomeFailed;
    }
    if outcome.left > 0 {
        tell!("interrupted: {} of {jobs} cells left; the same command goes on from here", outcome.left);
        return Exit::Interrupted;
    }
    if outcome.failed > 0 {
        tell!(
            "{} cells failed; `harness plan {grid}` names them, `harness run {grid}` tries them again",
            outcome.failed
        );
        return Exit::SomeFailed;
    }
    Exit::Done
}

/// How many bytes of activations may lie on any of `devices`.
fn sensible_bytes(devices: &[Device]) -> u64 {
    devices.iter().map(sensible_bytes_on).min().unwrap_or(u64::MAX)
}

/// A child per place, which share the threads of this process.
fn isolated<'a>(places: impl Iterator<Item = &'a Device>, args: &Args, checkpoints: Checkpoints) -> Result<Isolated> {
    let program = std::env::current_exe()
        .map_err(|error| Error::Usage(format!("--isolate: this program's own file is not known: {error}")))?;
    let devices: Vec<String> = places.map(device_name).collect();
    let threads = thread_counts(devices.len());
    let places = devices.into_iter().zip(threads).map(|(device, threads)| Place { device, threads }).collect();
    let IsolationArgs { timeout, cell_memory: limit_bytes, .. } = args.isolation;
    let (memory_bytes, retries) = (args.memory, args.isolation.retries());
    Ok(Isolated { program, places, memory_bytes, limit_bytes, checkpoints, retries, timeout })
}

/// One worker per loader; several share the threads of the process.
fn workers<'a>(first: &'a mut Loader, others: &'a mut [Loader]) -> Result<Vec<Worker<'a>>> {
    if others.is_empty() {
        return Ok(vec![Worker::with_all_threads(first)]);
    }
    let pools = thread_pools(1 + others.len())?;
    let loaders = std::iter::once(first).chain(others);
    Ok(loaders.zip(pools).map(|(loader, pool)| Worker { loader, threads: Some(pool) }).collect())
}

/// Says how many stored runs are without the network that they shall keep: what was not kept then cannot be had but by another run.
fn warn_of_lacking_models(session: &Session, jobs: &[Job], keep: Keep) {
    let is_to_run = |planned: &Planned| jobs.iter().any(|job| job.run_id == planned.id.to_string());
    let has_model = |planned: &Planned| has_model(&session.store.run_folder(&planned.id.to_string()));
    let lacking = session.plan.iter().filter(|planned| !is_to_run(planned) && !has_model(planned)).count();
    if keep.model && lacking > 0 {
        tell!("note: {lacking} stored runs were made without --save-model; --fresh runs them again");
    }
}

/// Says once per method which fields of its recipe differ from the published ones: a table must not surprise.
fn warn_of_departures(session: &Session) {
    let mut lines = BTreeSet::new();
    for cell in session.plan.iter().map(|planned| &planned.cell) {
        let departures = cell.departures();
        if let (Some(method), false) = (methods::find(&cell.method), departures.is_empty()) {
            lines.insert(format!(
                "note: {} differs from its published recipe in {}",
                method.title,
                departures.join(", ")
            ));
        }
    }
    lines.iter().for_each(|line| tell!("{line}"));
}
