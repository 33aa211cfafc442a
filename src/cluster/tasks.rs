//! What the cluster says of the tasks of job arrays: `squeue` knows those that wait, run or ended a moment ago, `sacct` those that ended before.

use super::commands::output;
use super::script::SAYS;
use crate::disk::foreign;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// States of tasks that still have to begin.
const PENDING: [&str; 6] = ["pending", "requeued", "requeue_hold", "requeue_fed", "resv_del_hold", "special_exit"];
/// States of tasks that are over.
const ENDED: [&str; 10] = [
    "boot_fail",
    "cancelled",
    "completed",
    "deadline",
    "failed",
    "node_fail",
    "out_of_memory",
    "preempted",
    "revoked",
    "timeout",
];
/// The state of a task that neither program knows.
const UNKNOWN: &str = "unknown";
/// Of the end of a log, how much is looked at.
const END_OF_LOG: u64 = 1 << 14;

/// A task of a job array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub job: String,
    pub index: usize,
    /// As Slurm calls it, in lower case; `unknown` if its engine does not know it any more.
    pub state: String,
    /// Why it does not run, if it does not.
    pub reason: String,
    pub elapsed: String,
    pub nodes: String,
}

/// Whether a task is still to come, at work, or over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Pending,
    Running,
    Ended,
}

impl Task {
    pub fn stage(&self) -> Stage {
        match self.state.as_str() {
            state if PENDING.contains(&state) => Stage::Pending,
            state if ENDED.contains(&state) || state == UNKNOWN => Stage::Ended,
            _ => Stage::Running,
        }
    }

    /// `JOB_INDEX`, as Slurm calls it.
    pub fn id(&self) -> String {
        format!("{}_{}", self.job, self.index)
    }

    /// A task of which nobody knows more.
    pub(super) fn unknown(job: &str, index: usize) -> Self {
        Self::of_state(job, index, UNKNOWN)
    }

    fn of_state(job: &str, index: usize, state: &str) -> Self {
        // `CANCELLED by 1000`
        let state = state.split_whitespace().next().unwrap_or(UNKNOWN).trim_end_matches('+').to_lowercase();
        let none = String::new;
        Self { job: job.to_string(), index, state, reason: none(), elapsed: none(), nodes: none() }
    }
}

/// The tasks of `arrays`, jobs with their numbers of tasks, in their order; and why `sacct` could not tell of those that have ended, if it could not.
///
/// Errors: squeue is not there, or the cluster does not answer.
pub fn tasks(arrays: &[(&str, usize)]) -> Result<(Vec<Task>, Option<String>)> {
    let mut known = by_id(queued(arrays)?);
    let all = || arrays.iter().flat_map(|(job, count)| (0..*count).map(move |index| (job.to_string(), index)));
    let mut problem = None;
    if all().any(|id| !known.contains_key(&id)) {
        let jobs = format!("--jobs={}", jobs_of(arrays));
        let most = arrays.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let format = "--format=JobID,State,Elapsed,NodeList";
        match output("sacct", &["--noheader", "--parsable2", "--allocations", &jobs, format]) {
            Ok(printed) => by_id(in_sacct(&printed, most)).into_iter().for_each(|(id, task)| {
                known.entry(id).or_insert(task);
            }),
            Err(error) => problem = Some(error.to_string()),
        }
    }
    let tasks = all().map(|id| known.remove(&id).unwrap_or_else(|| Task::unknown(&id.0, id.1)));
    Ok((tasks.collect(), problem))
}

fn jobs_of(arrays: &[(&str, usize)]) -> String {
    arrays.iter().map(|(job, _)| *job).collect::<Vec<_>>().join(",")
}

fn by_id(tasks: Vec<Task>) -> BTreeMap<(String, usize), Task> {
    tasks.into_iter().map(|task| ((task.job.clone(), task.index), task)).collect()
}

/// Those of them that wait, run or ended a moment ago.
pub fn queued(arrays: &[(&str, usize)]) -> Result<Vec<Task>> {
    if arrays.is_empty() {
        return Ok(Vec::new());
    }
    let jobs = format!("--jobs={}", jobs_of(arrays));
    match output("squeue", &["--noheader", "--array", "--states=all", &jobs, "--format=%F|%K|%T|%M|%N|%r"]) {
        // So it says of a job that ended long ago, if it is the only one.
        Err(Error::Cluster(said)) if said.contains("Invalid job id") => Ok(Vec::new()),
        printed => printed.map(|printed| in_squeue(&printed)),
    }
}

/// `JOB|INDEX|STATE|ELAPSED|NODES|REASON` lines.
fn in_squeue(printed: &str) -> Vec<Task> {
    let task = |line: &str| {
        let mut parts = line.trim().splitn(6, '|');
        let mut next = || parts.next();
        let (job, index, state) = (next()?, next()?.parse().ok()?, next()?);
        let (elapsed, nodes, reason) = (next()?.to_string(), next()?.to_string(), next()?);
        let reason = if reason == "None" { String::new() } else { reason.to_string() };
        Some(Task { reason, elapsed, nodes, ..Task::of_state(job, index, state) })
    };
    printed.lines().filter_map(task).collect()
}

/// `JOB_INDEX|STATE|ELAPSED|NODES` lines; tasks that never began are one line, `JOB_[INDICES]`. No index is `most` or more.
fn in_sacct(printed: &str, most: usize) -> Vec<Task> {
    let tasks = |line: &str| {
        let mut parts = line.trim().split('|');
        let (id, state) = (parts.next()?, parts.next()?);
        let (job, indices) = id.split_once('_')?;
        let (elapsed, nodes) = (parts.next()?.to_string(), parts.next()?.replace("None assigned", ""));
        let task = |index| Task { elapsed: elapsed.clone(), nodes: nodes.clone(), ..Task::of_state(job, index, state) };
        Some(expanded(indices, most).into_iter().map(task).collect::<Vec<_>>())
    };
    printed.lines().filter_map(tasks).flatten().collect()
}

/// Those below `most` of `4` or of `[0,3-7%2]`, in which `%` is followed by how many may run at once.
fn expanded(indices: &str, most: usize) -> Vec<usize> {
    let listed = indices.trim_start_matches('[').trim_end_matches(']').split('%').next().unwrap_or_default();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?.min(most.checked_sub(1)?))
    };
    listed.split(',').filter_map(range).flatten().collect()
}

/// What the log of a task says at its end: the exit code of its last start, and the line before that; nothing where there is no log.
pub fn last_words(log: &Path) -> (Option<u8>, Option<String>) {
    let Ok(text) = end_of(log) else { return (None, None) };
    let is_end = |line: &str| line.strip_prefix(SAYS)?.split_once(" exit code ")?.1.trim().parse().ok();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let start = lines.iter().rposition(|line| line.starts_with(SAYS) && line.contains(", start ")).unwrap_or(0);
    let code = lines[start..].iter().rev().find_map(|line| is_end(line));
    let said = lines[start..].iter().rev().find(|line| !line.starts_with(SAYS));
    (code, said.map(|line| line.trim().to_string()))
}

fn end_of(path: &Path) -> Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let io = || Error::io("cannot read", path);
    let mut file = foreign::open("cannot read", path)?;
    let length = file.metadata().map_err(io())?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END_OF_LOG))).map_err(io())?;
    let mut end = Vec::new();
    file.take(END_OF_LOG).read_to_end(&mut end).map_err(io())?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_squeue_prints_is_read() {
        let printed = "1|4|CANCELLED|0:08|vm|None\n1|3|PENDING|0:00||BeginTime\n 7|0|COMPLETING|1-02:00:00|node[1-2]|None\n\
                       9|N/A|RUNNING|0:01|vm|None\nno task\n";
        let tasks = in_squeue(printed);
        let shown: Vec<_> = tasks.iter().map(|task| (task.id(), task.stage(), task.reason.as_str())).collect();
        let expected = [
            ("1_4".to_string(), Stage::Ended, ""),
            ("1_3".to_string(), Stage::Pending, "BeginTime"),
            ("7_0".to_string(), Stage::Running, ""),
        ];
        assert_eq!(shown, expected);
        assert_eq!((tasks[2].elapsed.as_str(), tasks[2].nodes.as_str()), ("1-02:00:00", "node[1-2]"));
    }

    #[test]
    fn what_sacct_prints_is_read() {
        let printed = "12_0|COMPLETED|00:01:00|node7\n12_1|CANCELLED by 1000|00:00:00|None assigned\n12_2|OUT_OF_MEMORY|00:02:00|node7\n\
                       12_[3,5-6%4]|CANCELLED by 0|00:00:00|None assigned\n12_8|TIMEOUT|01:00:00|node8\n";
        let states: Vec<_> =
            in_sacct(printed, 9).into_iter().map(|task| (task.index, task.state, task.nodes)).collect();
        let expected = [
            (0, "completed", "node7"),
            (1, "cancelled", ""),
            (2, "out_of_memory", "node7"),
            (3, "cancelled", ""),
            (5, "cancelled", ""),
            (6, "cancelled", ""),
            (8, "timeout", "node8"),
        ];
        assert_eq!(states, expected.map(|(index, state, nodes)| (index, state.to_string(), nodes.to_string())));
    }

    #[test]
    fn no_claim_of_indices_takes_memory() {
        assert_eq!(expanded("[0-18446744073709551615]", 3), [0, 1, 2]);
        for indices in ["", "[]", "[5-3]", "[a-b,1-]", "[-]"] {
            assert!(expanded(indices, 9).is_empty(), "{indices}");
        }
        assert!(expanded("[1-2]", 0).is_empty());
    }

    #[test]
    fn a_log_ends_with_an_exit_code_and_what_the_worker_said() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("1_0.log");
        assert_eq!(last_words(&log), (None, None));
        let first = "== 2026-11-27T20:00:00 task 0 of job 1 on vm, start 1\nSIGUSR1: stopping\n== 2026-11-27T20:10:00 exit code 138\n";
        std::fs::write(&log, first).unwrap();
        assert_eq!(last_words(&log), (Some(138), Some("SIGUSR1: stopping".into())));
        let second = "== 2026-11-27T20:20:00 task 0 of job 1 on vm, start 2\n";
        std::fs::write(&log, format!("{first}{second}")).unwrap();
        assert_eq!(last_words(&log), (None, None));
        let lines = "cell\n".repeat(10_000);
        let end = "error: no weights\n\n== 2026-11-27T20:30:00 exit code 96\n";
        std::fs::write(&log, format!("{first}{second}{lines}{end}")).unwrap();
        assert_eq!(last_words(&log), (Some(96), Some("error: no weights".into())));
    }
}
