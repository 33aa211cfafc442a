//! `harness watch`.

use super::Exit;
use super::session::{GridArgs, ResultsArgs};
use super::signals::interruptible;
use super::submit::Wanted;
use crate::cluster::{CellState, Engine, Stage, Submission, Task, last_words};
use crate::error::{Error, Result};
use crate::experiment::{Experiment, SMOKE_SUFFIX, is_kebab_case};
use crate::store::{Store, utc};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many cells or tasks are named one by one.
const NAMED: usize = 20;
/// Between two looks at whether the user wants to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
#[command(after_help = "\
Cells are counted from the folder of results, tasks as squeue has them, and sacct once they are over, or hq. It prints what has changed until no task is left, and \
ends with 100 if cells are left or failed. Ctrl-C stops watching; the tasks go on.")]
pub struct Args {
    /// Grid file.
    grid: PathBuf,
    /// What was submitted with --smoke.
    #[arg(long)]
    smoke: bool,
    #[command(flatten)]
    results: ResultsArgs,
    /// Print how things are now, and stop.
    #[arg(long)]
    once: bool,
    /// Between two looks, such as 10s or 5m.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Cancel all tasks that wait or run: what they have trained stays for those who go on.
    #[arg(long, conflicts_with = "resubmit")]
    cancel: bool,
    /// Submit again the cells that are left or failed, as they were submitted before; nothing while tasks are there for them.
    #[arg(long)]
    resubmit: bool,
}

/// Follows what was submitted for a grid, cancels it, or submits again what is left of it.
pub fn watch(args: &Args) -> Result<Exit> {
    let grid = GridArgs { smoke: args.smoke, ..GridArgs::of(&args.grid, &args.results) };
    let experiment = experiment(&grid)?;
    let store = Store::new(&args.results.results, &experiment);
    let submissions = Submission::all(&store)?;
    if submissions.is_empty() {
        return Err(Error::NothingMatched(format!(
            "nothing of {experiment} was submitted (there is none in {}); `harness submit {} --slurm` (or --hq) does",
            Submission::folder(&store).display(),
            args.grid.display()
        )));
    }
    let shown = Shown {
        name: format!("{}{}", args.grid.display(), if args.smoke { " --smoke" } else { "" }),
        store,
        submissions,
    };
    match (args.cancel, args.resubmit) {
        (true, _) => shown.cancel(),
        (_, true) => shown.resubmit(&grid),
        _ if args.once => {
            let now = shown.look()?;
            say!("{}", now.text);
            Ok(now.exit(&shown.name))
        }
        _ => shown.follow(args.every, &*interruptible()?),
    }
}

/// Of the grid file alone the name is needed: it may be at work on while its tasks run. Errors: it has none.
fn experiment(grid: &GridArgs) -> Result<String> {
    let suffix = if grid.smoke { SMOKE_SUFFIX } else { "" };
    match Experiment::name_of(&grid.grid).filter(|name| is_kebab_case(name)) {
        Some(name) => Ok(format!("{name}{suffix}")),
        None => Ok(grid.read()?.name),
    }
}

/// An experiment of which something was submitted.
struct Shown {
    /// Of the grid file, as `watch` takes it.
    name: String,
    store: Store,
    /// The oldest first.
    submissions: Vec<Submission>,
}

/// How things are.
struct Look {
    text: String,
    /// Cells by their state.
    cells: BTreeMap<&'static str, usize>,
    /// Tasks that wait or run.
    alive: usize,
}

impl Shown {
    fn follow(&self, every: Duration, cancelled: &AtomicBool) -> Result<Exit> {
        let mut now = self.look()?;
        say!("{}", now.text);
        while now.alive > 0 {
            let since = Instant::now();
            while since.elapsed() < every {
                if cancelled.load(Ordering::Relaxed) {
                    return Ok(Exit::Interrupted);
                }
                std::thread::sleep(LOOK_EVERY);
            }
            let before = now.text.clone();
            now = match self.look() {
                // A cluster that does not answer, as while it is started anew, will.
                Err(Error::Cluster(problem)) => {
                    tell!("note: {problem}");
                    continue;
                }
                look => look?,
            };
            if now.text != before {
                say!("\n{}", now.text);
            }
        }
        Ok(now.exit(&self.name))
    }

    fn look(&self) -> Result<Look> {
        let (mut tasks, mut problem) = (Vec::new(), None);
        for (engine, jobs) in self.jobs() {
            let (own, own_problem) = engine.tasks(&jobs)?;
            tasks.extend(own);
            problem = problem.or(own_problem);
        }
        let mut lines = Vec::new();
        let states = self.states();
        let mut cells: BTreeMap<&'static str, usize> = BTreeMap::new();
        states.values().for_each(|(state, _)| *cells.entry(name(*state)).or_default() += 1);
        lines.push(format!("{} cells: {}", states.len(), counted(&cells)));
        let of = |wanted| states.iter().filter(move |(_, (state, _))| *state == wanted).map(|(run_id, _)| run_id);
        let running = of(CellState::Running).map(|run_id| match self.store.maker(run_id) {
            Some(owner) => format!("  running  {run_id}  process {} on {}", owner.process, owner.host),
            None => format!("  running  {run_id}"),
        });
        let failed = of(CellState::Failed).map(|run_id| {
            let error = self.store.record(run_id).and_then(|record| record.error).unwrap_or_default();
            format!("  failed   {run_id}  {error}")
        });
        lines.extend(named(running.chain(failed).collect(), "cells"));
        for (at, submission) in self.submissions.iter().enumerate() {
            let own: Vec<&Task> =
                tasks.iter().filter(|task| submission.arrays.iter().any(|array| array.job == task.job)).collect();
            let is_alive = own.iter().any(|task| task.stage() != Stage::Ended);
            let is_needed = states.values().any(|(state, of)| *of == at && *state != CellState::Done);
            // What is over and has been submitted again is history.
            if is_alive || is_needed || at + 1 == self.submissions.len() {
                lines.extend(self.lines_of(submission, &own));
            }
        }
        if let (Some(problem), true) = (&problem, tasks.iter().any(|task| task.state == "unknown")) {
            lines.push(format!("  how tasks ended of which squeue knows no more is not known here: {problem}"));
        }
        let alive = tasks.iter().filter(|task| task.stage() != Stage::Ended).count();
        Ok(Look { text: lines.join("\n"), cells, alive })
    }

    /// How far each submitted cell is, with which submission was the last to have it.
    fn states(&self) -> BTreeMap<&str, (CellState, usize)> {
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for (at, submission) in self.submissions.iter().enumerate() {
            last.extend(submission.cells.iter().map(|run_id| (run_id.as_str(), at)));
        }
        let state = |(run_id, at): (_, usize)| (run_id, (self.submissions[at].state(run_id, &self.store), at));
        last.into_iter().map(state).collect::<BTreeMap<&str, _>>()
    }

    fn lines_of(&self, submission: &Submission, tasks: &[&Task]) -> Vec<String> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for task in tasks {
            let why = match task.stage() {
                Stage::Pending if !task.reason.is_empty() => format!(" ({})", task.reason),
                _ => String::new(),
            };
            *counts.entry(format!("{}{why}", task.state)).or_default() += 1;
        }
        let (jobs, submitted) = (submission.named_jobs(), utc(submission.submitted_unix_s));
        let head = format!("{jobs}, submitted {submitted}, {} tasks: {}", tasks.len(), counted(&counts));
        let bad = |task: &&&Task| task.stage() == Stage::Ended && task.state != "completed";
        let lines = tasks.iter().filter(bad).map(|task| {
            let log = Submission::folder(&self.store).join(format!("{}.log", task.id()));
            let (code, said) = last_words(&log);
            let code = code.map(|code| format!(" (exit code {code})")).unwrap_or_default();
            let said = said.map(|said| format!(": {said}")).unwrap_or_default();
            // One that never began has no log.
            let log = if log.exists() { format!("{}{said}", log.display()) } else { String::new() };
            let parts = [task.id(), format!("{}{code}", task.state), task.elapsed.clone(), task.nodes.clone(), log];
            format!("  {}", parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  "))
        });
        std::iter::once(head).chain(named(lines.collect(), "tasks")).collect()
    }

    /// All jobs of each engine that was used.
    fn jobs(&self) -> impl Iterator<Item = (Engine, Vec<(&str, usize)>)> {
        let of = |engine: Engine| {
            let own = self.submissions.iter().filter(move |submission| submission.engine == engine);
            (engine, own.flat_map(Submission::jobs).collect::<Vec<_>>())
        };
        Engine::ALL.into_iter().map(of).filter(|(_, jobs)| !jobs.is_empty())
    }

    fn cancel(&self) -> Result<Exit> {
        let (mut tasks, mut cancelled) = (0, Vec::new());
        for (engine, jobs) in self.jobs() {
            let mut alive = engine.queued(&jobs)?;
            alive.retain(|task| task.stage() != Stage::Ended);
            let jobs: BTreeSet<String> = alive.iter().map(|task| task.job.clone()).collect();
            if !jobs.is_empty() {
                engine.cancel(&jobs.iter().map(String::as_str).collect::<Vec<_>>())?;
                tasks += alive.len();
                cancelled.extend(jobs);
            }
        }
        if cancelled.is_empty() {
            return Err(Error::NothingMatched(format!("no task of {} waits or runs", self.name)));
        }
        let jobs = cancelled.join(", ");
        say!("cancelled {tasks} tasks of {jobs}; `harness watch {} --resubmit` goes on", self.name);
        Ok(Exit::Done)
    }

    /// Each cell as the last submission that had it was.
    fn resubmit(&self, grid: &GridArgs) -> Result<Exit> {
        let states = self.states();
        let mut is_any_left = false;
        for (at, submission) in self.submissions.iter().enumerate().rev() {
            let left = states.iter().filter(|(_, (state, of))| *of == at && *state != CellState::Done);
            let left: BTreeSet<String> = left.map(|(run_id, _)| run_id.to_string()).collect();
            if left.is_empty() {
                continue;
            }
            is_any_left = true;
            let Submission { engine, set, tf32, smoke, many_cells, workers, run_arguments, .. } = submission.clone();
            let grid = GridArgs { set, tf32, smoke, many_cells, only: Some(left), ..grid.clone() };
            Wanted { engine, grid, workers, run_arguments, again: false }.submit()?;
        }
        match is_any_left {
            true => Ok(Exit::Done),
            false => Err(Error::NothingMatched(format!("all cells of {} that were submitted are done", self.name))),
        }
    }
}

impl Look {
    /// Says what can be done if nobody does anything any more.
    fn exit(&self, grid: &str) -> Exit {
        let of = |state| self.cells.get(name(state)).copied().unwrap_or(0);
        let (failed, left) = (of(CellState::Failed), of(CellState::Pending));
        if self.alive > 0 || failed + left == 0 {
            return Exit::Done;
        }
        tell!(
            "no task is left, but {left} cells are, and {failed} failed: `harness watch {grid} --resubmit` submits them again"
        );
        Exit::SomeFailed
    }
}

fn name(state: CellState) -> &'static str {
    match state {
        CellState::Done => "done",
        CellState::Failed => "failed",
        CellState::Running => "running",
        CellState::Pending => "pending",
    }
}

/// `3 done, 1 failed`
fn counted<Name: std::fmt::Display>(counts: &BTreeMap<Name, usize>) -> String {
    counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

/// Some of `lines`, and how many more there are.
fn named(mut lines: Vec<String>, what: &str) -> Vec<String> {
    let more = lines.len().saturating_sub(NAMED);
    lines.truncate(NAMED);
    lines.extend((more > 0).then(|| format!("  and {more} more {what}")));
    lines
}
