//! `harness cell`: one job in a process of its own, for launchers.

use super::Exit;
use super::bytes;
use super::cache_folder::CacheFolder;
use super::device::device;
use super::session::loader;
use super::signals::interruptible;
use crate::error::Result;
use crate::launch::{Caches, Event, InProcess, Job, Others, Worker, run_grid, sensible_bytes_on};
use crate::store::Store;
use std::io::{Read, Write};
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
    /// Folder to leave in what is trained so far, and to go on from it.
    #[arg(long, value_name = "DIR")]
    partial: Option<PathBuf>,
    /// Stop when standard input ends.
    #[arg(long)]
    until_eof: bool,
}

/// Runs the job.
pub fn cell(args: &Args) -> Result<Exit> {
    let job = Job::read(&args.job)?;
    let device = device(&args.device)?;
    let store = Store::of_runs(&args.out)?;
    let cancelled = interruptible()?;
    if args.until_eof {
        stop_at_end_of_input(&cancelled);
    }
    let folder = CacheFolder::open()?;
    let caches = Caches::new(folder.path(), args.memory.unwrap_or_else(|| sensible_bytes_on(&device)));
    let mut loader = loader(&device, true);
    if let Some(source) = &job.data_source {
        loader.pin_data(&job.cell, source)?;
    }
    let workers = vec![Worker::with_all_threads(&mut loader)];
    let mut launcher = InProcess { workers, caches: &caches, partial: args.partial.clone() };
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
