//! `harness submit`.

use super::session::{GridArgs, Session};
use super::{Cli, Exit};
use crate::cluster::{self, Array, Engine, Script, Stage, Submission, text_of};
use crate::disk::atomic;
use crate::error::{Error, Result};
use crate::experiment::{Experiment, SlurmOptions};
use crate::store::{State, Store};
use candle_core::Device;
use clap::Parser;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    grid: GridArgs,
    /// To Slurm: a job array, whose tasks ask for what the grid's [slurm] table says.
    #[arg(long)]
    slurm: bool,
    /// To HyperQueue, whose server and workers run already: a job whose tasks ask for the table's cpus and gpus.
    #[arg(long, conflicts_with = "slurm")]
    hq: bool,
    /// How many tasks at most [default: `workers` of the table, or one per cell].
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Print the script and the commands that would submit it, and stop.
    #[arg(long)]
    print: bool,
    /// Submit cells even if tasks that were submitted for them before wait or run.
    #[arg(long)]
    again: bool,
    /// Further arguments of `harness run` for each task, such as `-- --isolate --jobs 2`.
    #[arg(last = true, value_name = "ARGUMENT")]
    run_arguments: Vec<String>,
}

const HELP: &str = "\
Each task is a worker: it takes cells until none is left, whichever task was to do what. Shortly before its time is over it stops, keeps what it has \
trained, and is requeued alone. Logs, scripts and what was submitted lie in results/EXPERIMENT/slurm/; `harness watch GRID` follows. Weights and data are \
looked at here, and downloaded if need be; the grid file is read again by each task. SBATCH_PARTITION, SBATCH_TIMELIMIT and so on go before the table. \
HyperQueue takes cpus, gpus, workers and setup of it, and begins tasks anew (requeues) whose workers are gone, as with their allocations: what a cell \
loses then is what was not kept yet (--checkpoint-every).

The table, all of it optional:
  [slurm]
  partition = \"gpu\"
  account = \"lab\"
  gpus = 1                           # per task; gpu-type = \"a100\"
  cpus = 8
  memory = \"32G\"
  time = \"4:00:00\"
  workers = 8                        # tasks at most
  stop-before-s = 120                # when a task stops before its time is over
  requeues = 20                      # how often it is requeued then, at most
  setup = [\"module load cuda/12.4\"]  # lines of the shell
  options = [\"--qos=long\"]           # further options of sbatch";

/// Submits workers for the cells of a grid that have no result yet.
pub fn submit(args: &Args) -> Result<Exit> {
    let engine = match (args.slurm, args.hq) {
        (true, _) => Engine::Slurm,
        (_, true) => Engine::Hq,
        _ => return Err(Error::Usage("submit to what? --slurm or --hq".to_string())),
    };
    let wanted = Wanted {
        engine,
        grid: args.grid.clone(),
        workers: args.workers.map(NonZeroUsize::get),
        run_arguments: args.run_arguments.clone(),
        again: args.again,
    };
    if args.print { wanted.print() } else { wanted.submit() }
}

/// What is to be submitted.
pub(super) struct Wanted {
    pub engine: Engine,
    pub grid: GridArgs,
    /// Tasks at most.
    pub workers: Option<usize>,
    /// Further arguments of the workers.
    pub run_arguments: Vec<String>,
    /// Even if tasks are there for the same cells.
    pub again: bool,
}

impl Wanted {
    /// Submits it. Errors: nothing is pending, or tasks are there for it; the engine is not here or refuses.
    pub(super) fn submit(&self) -> Result<Exit> {
        self.engine.check_here()?;
        if self.grid.grid.exists() && !self.grid.grid.is_file() {
            let grid = self.grid.grid.display();
            return Err(Error::Usage(format!(
                "{grid} is no regular file, and each task reads the grid again: write it to one"
            )));
        }
        let session = Session::open(&self.grid, &Device::Cpu)?;
        session.refuse_namesake()?;
        let (experiment, store) = (&session.experiment, &session.store);
        let cells = pending(&session)?;
        if !self.again {
            refuse_twice(store, &cells, &experiment.path)?;
        }
        let arrays = split(self.tasks(cells.len(), &experiment.slurm), self.engine.most_tasks()?);
        let path = Submission::take_path(store)?;
        let mut submission = self.submission(cells);
        let command = self.worker(experiment, &path);
        let sent = command.and_then(|command| {
            let logs = Submission::folder(store);
            let script = script(experiment, &logs, &command);
            send(&mut submission, &path, &script, arrays)
        });
        if submission.arrays.is_empty() {
            for extension in ["json", "sh", "toml"] {
                std::fs::remove_file(path.with_extension(extension)).ok();
            }
        }
        say_submitted(&submission, store);
        sent.map(|()| Exit::Done)
    }

    /// Prints what would be submitted, wherever that is. Errors: nothing is pending.
    fn print(&self) -> Result<Exit> {
        let session = Session::without_downloads(&self.grid)?;
        session.refuse_namesake()?;
        let cells = pending(&session)?;
        let path = Submission::next_path(&session.store)?;
        let file = path.with_extension("sh");
        let (experiment, logs) = (&session.experiment, Submission::folder(&session.store));
        let command = self.worker(experiment, &path)?;
        let script = script(experiment, &logs, &command);
        // Where there is no cluster the commands are as for the size that Slurm has by default.
        let size = self.engine.most_tasks().unwrap_or(cluster::MAX_ARRAY_SIZE);
        // Its first line comes first: what is printed is a script.
        say!("{}", self.engine.script(&script)?.trim_end());
        for tasks in split(self.tasks(cells.len(), &experiment.slurm), size) {
            if let Some((path, text)) = self.engine.job_file(&script, &file, tasks)? {
                let lines: Vec<String> = text.lines().map(|line| format!("#   {line}")).collect();
                say!("# {}:\n{}", path.display(), lines.join("\n"));
            }
            say!("# {}", self.engine.command(&file, tasks)?);
        }
        say!(
            "# {} cells. Nothing was submitted: --worker's file is written when it is; without it a worker takes all of the grid.",
            cells.len()
        );
        Ok(Exit::Done)
    }

    fn tasks(&self, cells: usize, options: &SlurmOptions) -> usize {
        self.workers.or(options.workers.map(NonZeroUsize::get)).map_or(cells, |most| most.min(cells))
    }

    fn submission(&self, cells: BTreeSet<String>) -> Submission {
        let GridArgs { grid, set, tf32, smoke, many_cells, .. } = self.grid.clone();
        let (engine, workers, run_arguments) = (self.engine, self.workers, self.run_arguments.clone());
        Submission { engine, set, tf32, smoke, many_cells, workers, run_arguments, ..Submission::new(grid, cells) }
    }

    /// The worker of each task, for the cells that the file `submission` names. Errors: arguments that `harness run` does not take.
    fn worker(&self, experiment: &Experiment, submission: &Path) -> Result<Vec<String>> {
        let program = std::env::current_exe()
            .map_err(|error| Error::Usage(format!("this program's own file is not known: {error}")))?;
        let GridArgs { grid, set, tf32, smoke, many_cells, results, .. } = &self.grid;
        let mut command = vec![text_of(&program)?.to_string(), "run".to_string(), text_of(grid)?.to_string()];
        command.push(format!("--worker={}", text_of(submission)?));
        command.push(format!("--results={}", text_of(&results.results)?));
        command.extend(set.iter().map(|set| format!("--set={set}")));
        let flags = [(tf32, "--tf32"), (smoke, "--smoke"), (many_cells, "--many-cells")];
        command.extend(flags.into_iter().filter(|(is_given, _)| **is_given).map(|(_, flag)| flag.to_string()));
        command.extend(device_argument(experiment.slurm.gpus, &self.run_arguments)?);
        command.extend(self.run_arguments.iter().cloned());
        if let Err(error) = Cli::try_parse_from(&command) {
            let said = error.to_string();
            let said = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
            return Err(Error::Usage(format!("`harness run` cannot be started so: {said}")));
        }
        Ok(command)
    }
}

fn script<'a>(experiment: &'a Experiment, logs: &'a Path, command: &'a [String]) -> Script<'a> {
    Script { experiment: &experiment.name, logs, options: &experiment.slurm, command }
}

/// Writes `submission` to `path` and its script beside it, and submits the arrays, of so many tasks each. Errors: as of the first that cannot be
/// submitted; those before it are.
fn send(submission: &mut Submission, path: &Path, script: &Script, arrays: Vec<usize>) -> Result<()> {
    let (engine, file) = (submission.engine, path.with_extension("sh"));
    atomic::write(&file, engine.script(script)?.as_bytes())?;
    // Before the first task begins.
    submission.write(path)?;
    for tasks in arrays {
        if let Some((path, text)) = engine.job_file(script, &file, tasks)? {
            atomic::write(&path, text.as_bytes())?;
        }
        submission.arrays.push(Array { job: engine.submit(&file, tasks)?, tasks });
        submission.write(path)?;
    }
    Ok(())
}

/// A task that asked for GPUs computes on them, or fails: on the CPU nobody would notice. Errors: this binary has no CUDA.
fn device_argument(gpus: u32, run_arguments: &[String]) -> Result<Option<String>> {
    let is_said = run_arguments.iter().any(|argument| argument.starts_with("--device"));
    if gpus == 0 || is_said {
        return Ok(None);
    }
    if !cfg!(feature = "cuda") {
        return Err(Error::Device(format!(
            "the grid's [slurm] table asks for gpus = {gpus}, but this binary was built for the CPU alone; build it with `cargo build --release \
             --features cuda`, or say `-- --device cpu`"
        )));
    }
    let devices: Vec<String> = (0..gpus).map(|index| format!("cuda:{index}")).collect();
    Ok(Some(if gpus == 1 { format!("--device={}", devices[0]) } else { format!("--devices={}", devices.join(",")) }))
}

/// The cells that have no result yet, or failed. Errors: there are none.
fn pending(session: &Session) -> Result<BTreeSet<String>> {
    let pending = session.plan.iter().filter(|planned| planned.state != State::Done);
    let cells: BTreeSet<String> = pending.map(|planned| planned.id.to_string()).collect();
    if cells.is_empty() {
        let (grid, count) = (session.experiment.path.display(), session.plan.len());
        if count == 0 {
            return Err(Error::NothingMatched(format!("the cells that were submitted are not in {grid} any more")));
        }
        return Err(Error::NothingMatched(format!(
            "nothing to submit: {count} of {count} cells are done; `harness report {grid}` writes their tables"
        )));
    }
    Ok(cells)
}

/// Errors: some of `cells` were submitted before, and tasks are there for them.
fn refuse_twice(store: &Store, cells: &BTreeSet<String>, grid: &Path) -> Result<()> {
    let submissions = Submission::all(store)?;
    for submission in &submissions {
        let twice = submission.cells.intersection(cells).count();
        if twice == 0 {
            continue;
        }
        let queued = submission.engine.queued(&submission.jobs())?;
        let alive = queued.iter().filter(|task| task.stage() != Stage::Ended).count();
        if alive > 0 {
            let (jobs, grid) = (submission.named_jobs(), grid.display());
            return Err(Error::Usage(format!(
                "{twice} of {} pending cells were submitted before, as {jobs}, of which {alive} tasks wait or run: `harness watch {grid}` follows \
                 them, `harness submit --again` submits more",
                cells.len()
            )));
        }
    }
    Ok(())
}

/// So many tasks as job arrays of the size that the cluster takes.
fn split(tasks: usize, size: usize) -> Vec<usize> {
    let size = size.min(tasks.max(1));
    (0..tasks).step_by(size).map(|first| size.min(tasks - first)).collect()
}

fn say_submitted(submission: &Submission, store: &Store) {
    let tasks: usize = submission.arrays.iter().map(|array| array.tasks).sum();
    if tasks > 0 {
        let (cells, jobs, grid) = (submission.cells.len(), submission.named_jobs(), submission.grid.display());
        say!("submitted {cells} cells as {jobs}, {tasks} tasks; logs in {}", Submission::folder(store).display());
        let smoke = if submission.smoke { " --smoke" } else { "" };
        say!("`harness watch {grid}{smoke}` follows them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_split_into_arrays_that_the_cluster_takes() {
        assert_eq!(split(5, 1001), [5]);
        assert_eq!(split(2_003, 1_001), [1_001, 1_001, 1]);
        assert_eq!(split(4, 2), [2, 2]);
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_binary_for_the_cpu_does_not_wait_for_gpus() {
        let argument = |gpus, said: &[&str]| {
            let said: Vec<String> = said.iter().map(ToString::to_string).collect();
            device_argument(gpus, &said)
        };
        assert!(argument(1, &[]).unwrap_err().to_string().contains("--features cuda"));
        assert_eq!(argument(1, &["--device", "cpu"]).unwrap(), None);
        assert_eq!(argument(0, &[]).unwrap(), None);
    }
}
