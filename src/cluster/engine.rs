//! Who brings the workers: Slurm, or HyperQueue.

use super::{Script, Task, quoted, text_of};
use super::{commands, hq, tasks};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    #[default]
    Slurm,
    Hq,
}

/// Jobs, each with how many tasks it has.
pub type Jobs<'a> = [(&'a str, usize)];

impl Engine {
    pub const ALL: [Engine; 2] = [Engine::Slurm, Engine::Hq];

    /// Errors: its programs are not on this machine, or nobody answers them.
    pub fn check_here(self) -> Result<()> {
        match self {
            Engine::Slurm => commands::check_here(),
            Engine::Hq => hq::check_here(),
        }
    }

    /// How many tasks one job may have. Errors: the cluster does not answer, or has no job arrays.
    pub fn most_tasks(self) -> Result<usize> {
        match self {
            Engine::Slurm => commands::max_array_size(),
            Engine::Hq => Ok(usize::MAX),
        }
    }

    /// The script that each task runs. Errors: a path that no script can name.
    pub fn script(self, script: &Script) -> Result<String> {
        match self {
            Engine::Slurm => script.text(),
            Engine::Hq => hq::script(script),
        }
    }

    /// What is submitted beside the script in the file `path`, with its file, if anything is. Errors: a path that it cannot name.
    pub fn job_file(self, script: &Script, path: &Path, tasks: usize) -> Result<Option<(PathBuf, String)>> {
        match self {
            Engine::Slurm => Ok(None),
            Engine::Hq => Ok(Some((path.with_extension("toml"), hq::job_file(script, path, tasks)?))),
        }
    }

    /// The command that submits the script in the file `path`, for a shell.
    pub fn command(self, path: &Path, tasks: usize) -> Result<String> {
        let words = match self {
            Engine::Slurm => [&["sbatch".to_string()][..], &commands::sbatch_arguments(text_of(path)?, tasks)].concat(),
            Engine::Hq => {
                let file = path.with_extension("toml");
                [&["hq"][..], &hq::submit_arguments(text_of(&file)?)].concat().into_iter().map(String::from).collect()
            }
        };
        Ok(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
    }

    /// Submits it; the id of the job. Errors: what the engine said.
    pub fn submit(self, path: &Path, tasks: usize) -> Result<String> {
        match self {
            Engine::Slurm => commands::submit(path, tasks),
            Engine::Hq => hq::submit(&path.with_extension("toml")),
        }
    }

    /// Cancels all tasks of the jobs. Errors: what the engine said.
    pub fn cancel(self, jobs: &[&str]) -> Result<()> {
        match self {
            Engine::Slurm => commands::cancel(jobs),
            Engine::Hq => hq::cancel(jobs),
        }
    }

    /// The tasks of `jobs` that it remembers. Errors: it does not answer.
    pub fn queued(self, jobs: &Jobs) -> Result<Vec<Task>> {
        match self {
            Engine::Slurm => tasks::queued(jobs),
            Engine::Hq => hq::queued(jobs),
        }
    }

    /// All tasks of `jobs`, in their order; and why it could not tell of those that have ended, if it could not.
    pub fn tasks(self, jobs: &Jobs) -> Result<(Vec<Task>, Option<String>)> {
        match self {
            Engine::Slurm => tasks::tasks(jobs),
            Engine::Hq => hq::tasks(jobs),
        }
    }
}
