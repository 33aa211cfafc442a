//! `harness run`.

use super::Exit;
use super::bytes;
use super::device::DeviceArgs;
use super::jobs;
use super::progress::Progress;
use super::session::{GridArgs, Session, cache_folder, loader};
use crate::error::{Error, Result};
use crate::experiment::Hashes;
use crate::experiment::{Cell, RunId};
use crate::launch::{
    Caches, EVAL_BATCH, GridEvent, Launch, Loader, Publisher, Worker, run_grid, sensible_bytes_on, thread_pools,
};
use crate::profile::Profile;
use crate::store::State;
use crate::store::record::Provenance;
use ptq::methods;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    grid: GridArgs,
    #[command(flatten)]
    devices: DeviceArgs,
    /// How many cells to run at the same time on the CPU, with the same results, or `auto`: as many as a short measurement
    /// finds fastest, and the memory holds. The threads are divided among them.
    #[arg(long, value_name = "N|auto", default_value = "1", env = "HARNESS_JOBS", value_parser = jobs::parse, conflicts_with = "devices")]
    jobs: jobs::Wanted,
    /// How much of the activations of calibration images is kept in memory, such as 4GiB; the rest goes to a file in the cache
    /// folder, with the same results [default: half of the free memory, on a GPU of its own].
    #[arg(long, value_name = "SIZE", env = "HARNESS_MEMORY", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// Print what would run, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Run the selected cells again even if they are stored.
    #[arg(long)]
    fresh: bool,
    /// Say where the time went, per phase and per operation, and write a trace to FILE for https://ui.perfetto.dev or
    /// chrome://tracing [default: trace.json in the folder of the experiment's results].
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    profile: Option<Option<PathBuf>>,
    /// No progress, no table: errors and warnings only.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs what is pending, then reports.
pub fn run(args: &Args) -> Result<Exit> {
    let devices = args.devices.open()?;
    let mut session = Session::open_quietly(&args.grid, &devices[0], args.quiet)?;
    session.refuse_namesake()?;
    let to_run: Vec<(RunId, Cell, Hashes)> = session
        .plan
        .iter()
        .filter(|planned| args.fresh || planned.state != State::Done)
        .map(|planned| (planned.id.clone(), planned.cell.clone(), planned.hashes.clone()))
        .collect();
    if args.dry_run {
        to_run.iter().for_each(|(id, ..)| say!("{id}"));
        say!("{} of {} cells would run", to_run.len(), session.plan.len());
        return Ok(Exit::Done);
    }
    if !args.quiet {
        warn_of_departures(&session);
    }
    let caches = Caches::new(
        &cache_folder()?,
        args.memory.unwrap_or_else(|| devices.iter().map(sensible_bytes_on).min().unwrap_or(u64::MAX)),
    );
    let lock = session.store.lock()?;
    let cancelled = interruptible()?;
    let progress = Progress::new(to_run.len(), session.plan.len() - to_run.len(), args.quiet);
    let publisher = Publisher::new(to_run.len(), session.plan.len() - to_run.len());
    let grid = args.grid.grid.display().to_string();
    let first = to_run.first().map(|(_, cell, _)| cell);
    let count =
        devices.len().max(args.jobs.count(first, &mut session.loader, to_run.len(), (&cancelled, args.quiet))?);
    let others = devices.iter().cycle().take(count).skip(1);
    let mut others: Vec<Loader> = others.map(|device| loader(device, args.quiet)).collect();
    let workers = workers(&mut session.loader, &mut others)?;
    let launch = Launch {
        store: &session.store,
        caches: &caches,
        experiment: &session.experiment.name,
        provenance: &|device| Provenance::now(device, rayon::current_num_threads(), EVAL_BATCH, &grid),
        observe: &|event: GridEvent| {
            // The steps of several cells at once would only hide each other.
            if count == 1 || !matches!(event, GridEvent::Cell(_)) {
                publisher.note(&event);
                progress.show(&event);
            }
        },
        cancelled: &cancelled,
    };
    let profile = args.profile.as_ref().map(|_| Profile::start()).transpose()?;
    let (outcome, published) = publisher.during(&session.store, || run_grid(&to_run, workers, &launch));
    progress.finish();
    drop(lock);
    if let Err(error) = published {
        eprintln!("warning: `harness serve` could not follow this grid: {error}");
    }
    let outcome = outcome?;
    super::report::write(&session, args.quiet)?;
    if let (Some(profile), Some(path)) = (profile, &args.profile) {
        let path = path.clone().unwrap_or_else(|| session.store.folder().join("trace.json"));
        profile.write_trace(&path)?;
        say!("{}\n{}", profile.summary(), path.display());
    }
    if outcome.left > 0 {
        eprintln!("interrupted: {} of {} cells left; the same command goes on from here", outcome.left, to_run.len());
        return Ok(Exit::Interrupted);
    }
    if outcome.failed > 0 {
        eprintln!(
            "{} cells failed; `harness plan {grid}` names them, `harness run {grid}` tries them again",
            outcome.failed
        );
        return Ok(Exit::SomeFailed);
    }
    Ok(Exit::Done)
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

/// A flag that Ctrl-C sets; a second Ctrl-C ends the process at once.
pub(super) fn interruptible() -> Result<Arc<AtomicBool>> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let flag = cancelled.clone();
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(106);
        }
        eprintln!("stopping; press Ctrl-C again to stop at once");
    };
    ctrlc::set_handler(handler).map_err(|error| Error::Usage(format!("cannot listen to Ctrl-C: {error}")))?;
    Ok(cancelled)
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
    lines.iter().for_each(|line| eprintln!("{line}"));
}
