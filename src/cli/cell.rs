//! `harness cell`: one job in a process of its own, for launchers.

use super::Exit;
use super::bytes;
use super::cache_folder::CacheFolder;
use super::checkpoints::CheckpointArgs;
use super::device::device;
use super::session::loader;
use super::signals::interruptible;
use crate::error::{Error, Result};
use crate::launch::{EVAL_BATCH, Event, InProcess, Job, Others, Resources, Worker, run_grid, sensible_bytes_on};
use crate::store::Store;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(clap::Args)]
#[command(after_help = "\
Prints the events of the run as lines of JSON and leaves its folder (record, predictions, traces, pictures, log) in DIR.
Exit codes: 0 done, 2 bad usage or job, 96 set-up error, 100 the cell failed, which its record says, 106 interrupted.")]
pub struct Args {
    /// The job, as JSON.
    job: PathBuf,
    /// Folder that the run's folder is left in.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where to compute: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto", env = "HARNESS_DEVICE")]
    device: String,
    /// How much of the activations of calibration images is kept in memory, such as 4GiB.
    #[arg(long, value_name = "SIZE", env = "HARNESS_MEMORY", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// Images per pass of an evaluation, at most, with the same results.
    #[arg(long, value_name = "N", default_value_t = EVAL)]
    eval_batch: NonZeroUsize,
    /// How much memory this process gets, such as 8GiB: where it asks for more it ends as one whose memory ran out.
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse)]
    limit: Option<u64>,
    /// Folder to leave in what is trained so far, and to go on from it.
    #[arg(long, value_name = "DIR")]
    partial: Option<PathBuf>,
    #[command(flatten)]
    checkpoints: CheckpointArgs,
    /// Stop when standard input ends.
    #[arg(long)]
    until_eof: bool,
}

const EVAL: NonZeroUsize = NonZeroUsize::new(EVAL_BATCH).unwrap();

/// Runs the job.
pub fn cell(args: &Args) -> Result<Exit> {
    args.limit.map_or(Ok(()), limit_memory)?;
    let job = Job::read(&args.job)?;
    let device = device(&args.device)?;
    let store = Store::of_runs(&args.out)?;
    let cancelled = interruptible()?;
    if args.until_eof {
        stop_at_end_of_input(&cancelled);
    }
    let folder = CacheFolder::open()?;
    let sensible = || sensible_bytes_on(&device).min(args.limit.map_or(u64::MAX, |limit| limit / 2));
    let mut resources = Resources::new(folder.path(), args.memory.unwrap_or_else(sensible));
    resources.eval_batch = args.eval_batch.get();
    let mut loader = loader(&device, true);
    if let Some(source) = &job.data_source {
        loader.pin_data(&job.cell, source)?;
    }
    let workers = vec![Worker::with_all_threads(&mut loader)];
    let checkpoints = args.partial.clone().map(|folder| args.checkpoints.in_folder(folder));
    let mut launcher = InProcess { workers, resources: &resources, checkpoints };
    // Whoever does not read on is gone.
    let print = |event: &Event| match serde_json::to_string(event) {
        Ok(line) if writeln!(std::io::stdout(), "{line}").is_ok() => (),
        _ => cancelled.store(true, Ordering::Relaxed),
    };
    let outcome = run_grid(&[job], &mut launcher, &store, &print, (&cancelled, None), Others::Await)?;
    Ok(match (outcome.left, outcome.failed) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::SomeFailed,
        _ => Exit::Interrupted,
    })
}

/// Sets `cancelled` when whoever holds the other end of standard input closes it, or is gone.
fn stop_at_end_of_input(cancelled: &Arc<AtomicBool>) {
    let cancelled = cancelled.clone();
    std::thread::spawn(move || {
        let mut nothing = [0; 64];
        let mut stdin = std::io::stdin();
        while stdin.read(&mut nothing).is_ok_and(|read| read > 0) {}
        cancelled.store(true, Ordering::Relaxed);
    });
}

/// Refuses this process more than `bytes` of memory of its own from now on. Errors: the system knows no such limit, or a lower one.
#[cfg(unix)]
fn limit_memory(bytes: u64) -> Result<()> {
    // What it has of its own; address space that is only reserved, as by the driver of a GPU, costs nobody anything.
    let limited = rlimit::setrlimit(rlimit::Resource::DATA, bytes, bytes);
    limited
        .map_err(|error| Error::Usage(format!("--limit: the system does not limit memory to {bytes} bytes: {error}")))
}

#[cfg(not(unix))]
fn limit_memory(_: u64) -> Result<()> {
    Err(Error::Usage("--limit: this system limits no process's memory".to_string()))
}
