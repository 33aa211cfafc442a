//! HyperQueue: a server of its own on a cluster or a few machines, whose workers run tasks; what `hq` takes and prints.
//!
//! A job of it is called `hq-ID` here: Slurm counts its own from 1, too.

use super::commands::output;
use super::script::SAYS;
use super::{Script, Task, quoted, text_of};
use crate::error::{Error, Result};
use crate::experiment::SlurmOptions;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Begins the names of its jobs.
const PREFIX: &str = "hq-";
const JSON: &str = "--output-mode=json";

/// Errors: there is no `hq` here, or its server does not run.
pub(super) fn check_here() -> Result<()> {
    hq(&["server", "info", JSON]).map(drop)
}

pub(super) fn submit_arguments(job_file: &str) -> [&str; 4] {
    ["job", "submit-file", job_file, JSON]
}

/// Submits the job file; the name of the job.
pub(super) fn submit(job_file: &Path) -> Result<String> {
    #[derive(Deserialize)]
    struct Submitted {
        id: u64,
    }
    let printed = hq(&submit_arguments(text_of(job_file)?))?;
    let submitted: Submitted = parsed(&printed)?;
    Ok(format!("{PREFIX}{}", submitted.id))
}

pub(super) fn cancel(jobs: &[&str]) -> Result<()> {
    hq(&["job", "cancel", &ids(jobs.iter().copied()), JSON]).map(drop)
}

/// Tasks that the server knows: nothing of those of a server before it.
pub(super) fn queued(jobs: &[(&str, usize)]) -> Result<Vec<Task>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    in_job_info(&hq(&["job", "info", &ids(jobs.iter().map(|(job, _)| *job)), JSON])?)
}

pub(super) fn tasks(jobs: &[(&str, usize)]) -> Result<(Vec<Task>, Option<String>)> {
    let known = queued(jobs)?.into_iter().map(|task| ((task.job.clone(), task.index), task));
    let mut known: BTreeMap<(String, usize), Task> = known.collect();
    let all = jobs.iter().flat_map(|(job, count)| (0..*count).map(|index| (job.to_string(), index)));
    let tasks: Vec<Task> = all
        .map(|(job, index)| known.remove(&(job.clone(), index)).unwrap_or_else(|| Task::unknown(&job, index)))
        .collect();
    Ok((tasks, None))
}

fn hq(args: &[&str]) -> Result<String> {
    output("hq", args)
}

/// As `hq` takes them: `1,2`.
fn ids<'a>(jobs: impl Iterator<Item = &'a str>) -> String {
    jobs.map(|job| job.strip_prefix(PREFIX).unwrap_or(job)).collect::<Vec<_>>().join(",")
}

fn parsed<'a, T: Deserialize<'a>>(printed: &'a str) -> Result<T> {
    serde_json::from_str(printed).map_err(|error| Error::Cluster(format!("hq printed something else: {error}")))
}

#[derive(Deserialize)]
struct Detail {
    info: Info,
    tasks: Vec<Known>,
}

#[derive(Deserialize)]
struct Info {
    id: u64,
}

#[derive(Deserialize)]
struct Known {
    id: usize,
    state: String,
    worker: Option<u64>,
}

fn in_job_info(printed: &str) -> Result<Vec<Task>> {
    let details: Vec<Detail> = parsed(printed)?;
    let tasks = details.into_iter().flat_map(|Detail { info, tasks }| {
        tasks.into_iter().map(move |Known { id, state, worker }| {
            // In the words of Slurm.
            let state = match state.as_str() {
                "waiting" => "pending",
                "finished" => "completed",
                "canceled" | "aborted" => "cancelled",
                other => other,
            };
            let nodes = worker.map(|worker| format!("worker {worker}")).unwrap_or_default();
            Task { state: state.to_string(), nodes, ..Task::unknown(&format!("{PREFIX}{}", info.id), id) }
        })
    });
    Ok(tasks.collect())
}

/// What each task runs. Errors: a path that no script can name.
///
/// Who cancels a task interrupts all of its processes: the worker stops as for a Ctrl-C, and the shell waits for it. A task whose worker of HyperQueue is
/// gone, since its allocation is over, is begun again elsewhere, and goes on from what the harness has kept.
pub(super) fn script(Script { experiment, logs, options, command }: &Script) -> Result<String> {
    let setup: String = options.setup.iter().map(|line| format!("{}\n", line.0)).collect();
    let command: Vec<String> = command.iter().map(|argument| quoted(argument)).collect();
    let (logs, command) = (quoted(text_of(logs)?), command.join(" "));
    Ok(format!(
        r#"#!/bin/bash
# One of several workers for cells of {experiment} (`harness submit`): it takes them until none is left.
exec >> {logs}/"{PREFIX}${{HQ_JOB_ID}}_${{HQ_TASK_ID}}.log" 2>&1
say() {{ echo "{SAYS}$(date +%FT%T) $*"; }}
trap : INT TERM
say "task $HQ_TASK_ID of job $HQ_JOB_ID on $(hostname), start $((${{HQ_INSTANCE_ID:-0}} + 1))"
{setup}# What the task has, not what the machine has.
[ -z "$HQ_CPUS" ] || export RAYON_NUM_THREADS="${{RAYON_NUM_THREADS:-$(echo "$HQ_CPUS" | tr , '\n' | wc -l)}}"
{command}
code=$?
say "exit code $code"
exit "$code"
"#
    ))
}

/// A job definition file for the script in the file `path`. What of the table is about allocations is not HyperQueue's, whose workers have them.
pub(super) fn job_file(script: &Script, path: &Path, tasks: usize) -> Result<String> {
    let SlurmOptions { cpus, gpus, requeues, .. } = script.options;
    let text = |text: &str| toml::Value::from(text).to_string();
    let cpus = cpus.map(|cpus| format!("cpus = {cpus}"));
    let gpus = (*gpus > 0).then(|| format!("\"gpus/nvidia\" = {gpus}"));
    let asked: Vec<String> = cpus.into_iter().chain(gpus).collect();
    let request = match asked.is_empty() {
        true => String::new(),
        false => format!("[[array.request]]\nresources = {{ {} }}\n", asked.join(", ")),
    };
    // It begins the tasks anew whose workers are gone: as often as Slurm would requeue one.
    let crashes = (*requeues).clamp(1, u32::from(u16::MAX));
    Ok(format!(
        "name = {}\n[array]\nids = \"0-{}\"\ncommand = [\"bash\", {}]\nstdout = \"none\"\nstderr = \"none\"\ncrash_limit = {crashes}\n{request}",
        text(script.experiment),
        tasks.saturating_sub(1),
        text(text_of(path)?),
    ))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::super::Stage;
    use super::*;
    use std::process::Command;

    fn options(toml: &str) -> SlurmOptions {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn what_hq_prints_is_read() {
        let printed = r#"[{"info": {"id": 3, "name": "x", "task_stats": {}}, "tasks": [
            {"id": 0, "state": "finished", "worker": 1, "cwd": "/"}, {"id": 1, "state": "running", "worker": 2},
            {"id": 2, "state": "waiting"}, {"id": 3, "state": "failed", "worker": 1, "error": "exit code 3"}, {"id": 4, "state": "canceled"}
        ]}]"#;
        let tasks = in_job_info(printed).unwrap();
        let shown: Vec<_> = tasks.iter().map(|task| (task.id(), task.stage(), &*task.state, &*task.nodes)).collect();
        let expected = [
            ("hq-3_0".to_string(), Stage::Ended, "completed", "worker 1"),
            ("hq-3_1".to_string(), Stage::Running, "running", "worker 2"),
            ("hq-3_2".to_string(), Stage::Pending, "pending", ""),
            ("hq-3_3".to_string(), Stage::Ended, "failed", "worker 1"),
            ("hq-3_4".to_string(), Stage::Ended, "cancelled", ""),
        ];
        assert_eq!(shown, expected);
        assert!(in_job_info("no server").unwrap_err().to_string().contains("hq printed something else"));
        assert_eq!(ids(["hq-1", "hq-12"].into_iter()), "1,12");
    }

    #[test]
    fn a_job_file_asks_for_what_the_table_does() {
        let command = ["harness".to_string()];
        let of = |table: &str| {
            let (options, logs) = (options(table), Path::new("logs"));
            let script = Script { experiment: "x", logs, options: &options, command: &command };
            let text = job_file(&script, Path::new("it's \"100%\"/submission-1.sh"), 3).unwrap();
            toml::from_str::<toml::Table>(&text).unwrap()
        };
        let array = of("cpus = 2\ngpus = 1\nrequeues = 0").remove("array").unwrap();
        assert_eq!(array["command"][1].as_str(), Some("it's \"100%\"/submission-1.sh"));
        assert_eq!((array["ids"].as_str(), array["crash_limit"].as_integer()), (Some("0-2"), Some(1)));
        let resources = &array["request"][0]["resources"];
        assert_eq!((resources["cpus"].as_integer(), resources["gpus/nvidia"].as_integer()), (Some(2), Some(1)));
        let plain = of("").remove("array").unwrap();
        assert!(plain.get("request").is_none() && plain["stdout"].as_str() == Some("none"));
    }

    #[test]
    fn a_task_has_its_log_and_its_processors_and_ends_as_its_worker_does() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("it's 100%");
        std::fs::create_dir(&logs).unwrap();
        let worker = "echo $RAYON_NUM_THREADS threads; exit 100".to_string();
        let command = ["bash".to_string(), "-c".to_string(), worker];
        let options = options("setup = [\"echo set up\"]");
        let text = script(&Script { experiment: "x", logs: &logs, options: &options, command: &command }).unwrap();
        let path = folder.path().join("script");
        std::fs::write(&path, text).unwrap();
        let mut task = Command::new("bash");
        task.arg(&path).env_remove("RAYON_NUM_THREADS");
        task.envs([("HQ_JOB_ID", "3"), ("HQ_TASK_ID", "1"), ("HQ_INSTANCE_ID", "2"), ("HQ_CPUS", "4,6,7")]);
        assert_eq!(task.status().unwrap().code(), Some(100));
        let said = std::fs::read_to_string(logs.join("hq-3_1.log")).unwrap();
        for part in ["task 1 of job 3 on ", ", start 3\nset up\n3 threads\n", "exit code 100"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
