//! The launcher that gives each cell a process of its own, `harness cell`: what kills one leaves the others.

use super::evaluate::EVAL_BATCH;
use super::launcher::{Launcher, Watch, share};
use super::message::{Ended, Event, Job, What};
use super::notes::Notes;
use crate::error::{Error, Result};
use crate::store::record::{Cost, Provenance};
use crate::store::{Run, Store};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Between two looks at whether the user wants to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Lines of a child's standard error that its failure quotes, the last ones.
const LAST_LINES: usize = 4;

/// Children that run cells at the same time.
pub struct Isolated {
    /// The harness.
    pub program: PathBuf,
    /// One per child.
    pub places: Vec<Place>,
    /// How much of the activations a child may keep in memory; `None`: what it finds sensible.
    pub memory_bytes: Option<u64>,
}

/// Where a child computes.
pub struct Place {
    /// `cpu` or `cuda:N`.
    pub device: String,
    pub threads: usize,
}

impl Launcher for Isolated {
    fn launch(&mut self, jobs: &[Job], watch: &Watch) -> Result<()> {
        let (program, memory_bytes) = (&self.program, self.memory_bytes);
        share(jobs, &mut self.places, |place, job| match run_child(job, place, (program, memory_bytes), watch)? {
            Some(run) => (watch.run)(run).map(|()| true),
            None => Ok(false),
        })
    }
}

/// Runs one cell in a child; `None` if it was interrupted. A child that leaves no run has failed, whatever became of it.
///
/// Errors: the child's job cannot be written.
fn run_child(
    job: &Job,
    place: &Place,
    (program, memory_bytes): (&Path, Option<u64>),
    watch: &Watch,
) -> Result<Option<Run>> {
    (watch.event)(job.event(What::Started));
    let (started, notes) = (Instant::now(), Notes::start(&job.run_id));
    let provenance = Provenance::now(&place.device, place.threads, EVAL_BATCH, &job.grid);
    let folder = tempfile::tempdir().map_err(Error::io("cannot write into", &std::env::temp_dir()))?;
    let (file, out) = (folder.path().join("job.json"), folder.path().join("out"));
    job.write(&file)?;
    let mut command = Command::new(program);
    command.arg("cell").arg(&file).arg("--out").arg(&out).args(["--device", &place.device, "--until-eof"]);
    command.args(memory_bytes.map(|bytes| format!("--memory={bytes}")));
    command.env("RAYON_NUM_THREADS", place.threads.to_string());
    let heard = |event: Event| {
        // Its beginning is told above, and its end when it is stored.
        if let What::Progress(progress) = event.what {
            notes.note(&progress);
            (watch.event)(job.event(What::Progress(progress)));
        }
    };
    let ended = follow(&mut command, heard, watch);
    let problem = match ended {
        Ok((status, said)) => {
            let left = Store::of_runs(&out)?.run_folder(&job.run_id);
            match Run::read(&left) {
                Ok(run) if matches!(status.code(), Some(0 | 100)) => return Ok(Some(run)),
                Err(error) if matches!(status.code(), Some(0 | 100)) => format!("it left no run: {error}"),
                _ => end_of(status, &said),
            }
        }
        Err(error) => format!("it cannot be started as {}: {error}", program.display()),
    };
    if watch.cancelled.load(Ordering::Relaxed) {
        return Ok(None);
    }
    // Nobody knows what it took of processor and memory.
    let cost = Cost { wall_s: started.elapsed().as_secs_f64(), cpu_s: 0.0, peak_memory_bytes: None };
    let result = Err(format!("the cell's process: {problem}"));
    let record = job.record(Ended { hashes: None, result, cost, provenance });
    Ok(Some(notes.run(record, None, None)))
}

/// Starts `command` and tells its events until it ends; then how, and the last lines of its standard error.
///
/// Its standard input stays open for as long as it shall run: that also ends when this process is killed. In a process group of its
/// own it does not hear a Ctrl-C in the terminal itself.
fn follow(
    command: &mut Command,
    heard: impl Fn(Event) + Sync,
    watch: &Watch,
) -> std::io::Result<(ExitStatus, Vec<String>)> {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (told, is_told) = channel::<()>();
    std::thread::scope(|scope| {
        let heard = &heard;
        scope.spawn(move || {
            let events = lines(stdout).filter_map(|line| serde_json::from_slice::<Event>(&line).ok());
            events.for_each(heard);
            drop(told);
        });
        let said = scope.spawn(move || {
            let mut last = VecDeque::new();
            for line in lines(stderr) {
                last.extend([String::from_utf8_lossy(&line).trim().to_string()].into_iter().filter(|l| !l.is_empty()));
                last.drain(..last.len().saturating_sub(LAST_LINES));
            }
            Vec::from(last)
        });
        while is_told.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            if watch.cancelled.load(Ordering::Relaxed) {
                drop(stdin.take());
            }
        }
        drop(stdin);
        let status = child.wait()?;
        Ok((status, said.join().unwrap_or_default()))
    })
}

/// The lines that come out of a pipe, until it ends.
fn lines(pipe: Option<impl Read>) -> impl Iterator<Item = Vec<u8>> {
    pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).split(b'\n').map_while(std::result::Result::ok))
}

fn end_of(status: ExitStatus, said: &[String]) -> String {
    #[cfg(unix)]
    let is_killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    #[cfg(not(unix))]
    let is_killed = false;
    let hint = if is_killed { ", as where memory runs out: fewer --jobs or a smaller --memory take less" } else { "" };
    let said = if said.is_empty() { String::new() } else { format!("; it said: {}", said.join(" / ")) };
    format!("{status}{hint}{said}")
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::store::record::Status;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    /// The runs that a launcher makes of `jobs` whose children are a script of the shell.
    fn launched(script: &str, jobs: &[Job], cancelled: &AtomicBool) -> (Vec<Run>, Vec<Event>) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("child");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (runs, events) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let watch = Watch {
            event: &|event| events.lock().unwrap().push(event),
            run: &|run| {
                runs.lock().unwrap().push(run);
                Ok(())
            },
            cancelled,
        };
        let places = vec![Place { device: "cpu".into(), threads: 1 }];
        Isolated { program, places, memory_bytes: Some(7) }.launch(jobs, &watch).unwrap();
        (runs.into_inner().unwrap(), events.into_inner().unwrap())
    }

    #[test]
    fn a_child_that_dies_is_a_failure_that_keeps_what_it_told_and_the_next_has_its_turn() {
        let event = r#"{"run_id":"x","what":{"progress":{"phase-begun":{"unit":"stem","phase":"weights"}}}}"#;
        let point = r#"{"run_id":"x","what":{"progress":{"point":{"iteration":1,"loss":0.5,"regulariser":"NaN"}}}}"#;
        let script =
            format!("echo '{event}'\necho no event\necho '{point}'\necho \"$*\" >&2\necho dying >&2\nkill -9 $$");
        let jobs = [Job::sample(), Job::sample()];
        let (runs, events) = launched(&script, &jobs, &AtomicBool::new(false));
        assert_eq!((runs.len(), events.len()), (2, 6));
        let Run { record, artefacts } = &runs[0];
        let error = record.error.as_ref().unwrap();
        for part in ["signal: 9 (SIGKILL), as where memory runs out", "--memory=7", "/ dying"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!((record.status, &record.hashes), (Status::Failed, &jobs[0].hashes));
        assert_eq!((artefacts.traces[0].unit.as_str(), &artefacts.traces[0].loss[..]), ("stem", &[0.5][..]));
        assert!(artefacts.log.as_ref().unwrap().contains("SIGKILL"));
    }

    #[test]
    fn children_that_leave_nothing_or_do_not_start_are_failures_too() {
        let error = |script: &str| {
            let (runs, _) = launched(script, &[Job::sample()], &AtomicBool::new(false));
            runs[0].record.error.clone().unwrap()
        };
        assert!(error("exit 0").contains("it left no run"));
        assert!(error("exit 96").contains("exit status: 96"));
        let mut nowhere = Isolated { program: "nowhere/harness".into(), places: Vec::new(), memory_bytes: None };
        nowhere.places.push(Place { device: "cpu".into(), threads: 1 });
        let keep = |run: Run| {
            assert!(run.record.error.unwrap().contains("it cannot be started as nowhere/harness"));
            Ok(())
        };
        let watch = Watch { event: &|_| (), run: &keep, cancelled: &AtomicBool::new(false) };
        nowhere.launch(&[Job::sample()], &watch).unwrap();
    }

    #[test]
    fn a_child_hears_of_a_cancellation_and_leaves_no_run() {
        // Waits for the end of its standard input.
        let (runs, events) = launched("cat; exit 106", &[Job::sample(), Job::sample()], &AtomicBool::new(true));
        assert_eq!((runs.len(), events.len()), (0, 1));
    }
}
