//! The launcher that gives each cell a process of its own, `harness cell`: what kills one leaves the others.

use super::evaluate::EVAL_BATCH;
use super::launcher::{LOOK_EVERY, Launcher, Watch, share};
use super::message::{Ended, Event, Job, What};
use super::notes::Notes;
use super::partial::Checkpoints;
use super::usage::{Used, sensible_memory_bytes};
use crate::error::{Error, Result};
use crate::store::record::{Cost, Provenance};
use crate::store::{Artefacts, Run, Store};
use ptq::device_error::{DeviceError, Left};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Before a cell is tried again the first time; twice as long before the next.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Lines of a child's standard error that its failure quotes, the last ones.
const LAST_LINES: usize = 4;
/// What Rust says of an allocation that fails, before it aborts.
const REFUSED: &str = "memory allocation of ";
/// Images per pass of an evaluation, where memory was too small for more.
const FEW_IMAGES: usize = 16;
/// Between looks at whether a child that says nothing more has ended.
const LAST_LOOK_EVERY: Duration = Duration::from_millis(2);
const KILL: i32 = 9;
const ABORT: i32 = 6;

/// Children that run cells at the same time.
pub struct Isolated {
    /// The harness.
    pub program: PathBuf,
    /// One per child.
    pub places: Vec<Place>,
    /// How much of the activations a child may keep in memory; `None`: what it finds sensible.
    pub memory_bytes: Option<u64>,
    /// How much memory a child gets at all; `None`: as much as there is.
    pub limit_bytes: Option<u64>,
    /// What children that die leave.
    pub checkpoints: Checkpoints,
    /// How often a cell whose child was killed, or had no memory left, is tried again.
    pub retries: u32,
    /// How long a child may take.
    pub timeout: Option<Duration>,
}

/// Where a child computes.
pub struct Place {
    /// `cpu` or `cuda:N`.
    pub device: String,
    pub threads: usize,
}

impl Launcher for Isolated {
    fn launch(&mut self, jobs: &[Job], watch: &Watch) -> Result<()> {
        let mut places = std::mem::take(&mut self.places);
        share(jobs, &mut places, watch, |place, job| match self.run_child(job, place, watch)? {
            Some(run) => (watch.run)(run).map(|()| true),
            None => Ok(false),
        })?;
        self.places = places;
        Ok(())
    }
}

/// How an attempt ended.
enum Attempt {
    Run(Box<Run>),
    /// It left no run.
    Died {
        problem: String,
        kind: Kind,
    },
}

/// Why an attempt failed, as far as that says whether another one may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It had no memory left, or was killed as the system kills what takes too much: another one takes less.
    Memory,
    /// By whom or what does not matter: another one may live.
    Killed,
    /// Another one would end in the same way.
    Final,
}

/// How much memory an attempt takes, with the same results.
#[derive(Clone, Copy)]
struct Frugality {
    memory_bytes: Option<u64>,
    /// Images per pass of an evaluation.
    eval_batch: usize,
}

impl Frugality {
    /// For an attempt after one that had too little.
    fn stricter(self) -> Self {
        Self {
            memory_bytes: Some(self.memory_bytes.unwrap_or_else(sensible_memory_bytes) / 2),
            eval_batch: if self.eval_batch > FEW_IMAGES { FEW_IMAGES } else { self.eval_batch.div_ceil(4) },
        }
    }
}

impl Isolated {
    /// Runs one cell in a child, and in another one if that may help; `None` if it was interrupted. A child that leaves no run has
    /// failed, whatever became of it.
    ///
    /// Errors: the child's job cannot be written.
    fn run_child(&self, job: &Job, place: &Place, watch: &Watch) -> Result<Option<Run>> {
        (watch.event)(job.event(What::Started));
        let started = Instant::now();
        let mut frugality = Frugality { memory_bytes: self.memory_bytes, eval_batch: EVAL_BATCH };
        let mut provenance = Provenance::now(&place.device, place.threads, EVAL_BATCH, &job.grid);
        let mut used = Used::default();
        for attempt in 0.. {
            provenance.eval_batch = frugality.eval_batch;
            // What an earlier attempt told is told again by one that goes on from there.
            let notes = Notes::start(&job.run_id);
            let is_last = attempt >= self.retries;
            let (problem, kind) = match self.attempt(job, place, frugality, (&notes, watch), &mut used)? {
                Attempt::Run(run) if is_last || !lacked_memory(&run) => return Ok(Some(*run)),
                Attempt::Run(run) => (run.record.error.unwrap_or_default(), Kind::Memory),
                Attempt::Died { problem, kind } => (problem, kind),
            };
            let may_go_on = !is_last && kind != Kind::Final;
            if may_go_on && !watch.is_cancelled_within(FIRST_PAUSE * 2u32.saturating_pow(attempt)) {
                frugality = if kind == Kind::Memory { frugality.stricter() } else { frugality };
                continue;
            }
            if watch.cancelled.load(Ordering::Relaxed) {
                break;
            }
            let (wall_s, cpu_s, peak_memory_bytes) = (started.elapsed().as_secs_f64(), used.cpu_s, used.peak_bytes);
            let times = if attempt > 0 { format!(", at attempt {}", attempt + 1) } else { String::new() };
            let result = Err(format!("the cell's process{times}: {problem}"));
            let cost = Cost { wall_s, cpu_s, peak_memory_bytes };
            let record = job.record(Ended { hashes: None, result, cost, provenance });
            return Ok(Some(notes.run(record, Artefacts::default())));
        }
        Ok(None)
    }

    /// One child.
    fn attempt(
        &self,
        job: &Job,
        place: &Place,
        Frugality { memory_bytes, eval_batch }: Frugality,
        (notes, watch): (&Notes, &Watch),
        used: &mut Used,
    ) -> Result<Attempt> {
        let folder = tempfile::tempdir().map_err(Error::io("cannot write into", &std::env::temp_dir()))?;
        let (file, out) = (folder.path().join("job.json"), folder.path().join("out"));
        job.write(&file)?;
        let mut command = Command::new(&self.program);
        command.arg("cell").arg(&file).arg("--out").arg(&out).args(["--device", &place.device, "--until-eof"]);
        command.args(memory_bytes.map(|bytes| format!("--memory={bytes}")));
        command.args((eval_batch < EVAL_BATCH).then(|| format!("--eval-batch={eval_batch}")));
        if let Some(bytes) = self.limit_bytes {
            command.arg(format!("--limit={bytes}"));
            // What an allocator only reserves would count, too.
            command.env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
        }
        command.arg("--partial").arg(&self.checkpoints.folder);
        command.arg(format!("--checkpoint-every={}", humantime::format_duration(self.checkpoints.every)));
        command.env("RAYON_NUM_THREADS", place.threads.to_string());
        let heard = |event: Event| {
            // Its beginning is told before, and its end when it is stored.
            if let What::Progress(progress) = event.what {
                notes.note(&progress);
                (watch.event)(job.event(What::Progress(progress)));
            }
        };
        let ended = match follow(&mut command, heard, self.timeout, (watch, used)) {
            Ok(ended) => ended,
            Err(error) => {
                let problem = format!("it cannot be started as {}: {error}", self.program.display());
                return Ok(Attempt::Died { problem, kind: Kind::Final });
            }
        };
        if let (true, Some(timeout)) = (ended.is_late, self.timeout) {
            let problem = format!("it took longer than {}, its --timeout", humantime::format_duration(timeout));
            return Ok(Attempt::Died { problem, kind: Kind::Final });
        }
        let died = |problem: String| Attempt::Died { problem, kind: ended.kind() };
        if !matches!(ended.status.code(), Some(0 | 100)) {
            return Ok(died(ended.told()));
        }
        Ok(match Run::read(&Store::of_runs(&out)?.run_folder(&job.run_id)) {
            Ok(run) => Attempt::Run(Box::new(run)),
            Err(error) => died(format!("it left no run: {error}")),
        })
    }
}

/// Whether the memory of a device was too small for the run.
fn lacked_memory(run: &Run) -> bool {
    let error = run.record.error.as_deref().and_then(DeviceError::of);
    error.is_some_and(|error| error.left == Left::Memory)
}

/// What became of a child.
struct EndOfChild {
    status: ExitStatus,
    /// The last lines of its standard error; the one alone that says that memory was refused, after which may come any number of others.
    said: Vec<String>,
    /// It was stopped, since its time was over.
    is_late: bool,
}

/// Starts `command` and tells its events until it ends, or until its time is over.
///
/// Its standard input stays open for as long as it shall run: that also ends when this process is killed. In a process group of its
/// own it does not hear a Ctrl-C in the terminal itself.
fn follow(
    command: &mut Command,
    heard: impl Fn(Event) + Sync,
    timeout: Option<Duration>,
    (watch, used): (&Watch, &mut Used),
) -> std::io::Result<EndOfChild> {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let started = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (told, is_told) = channel::<()>();
    let (mut is_late, before) = (false, *used);
    std::thread::scope(|scope| {
        let heard = &heard;
        scope.spawn(move || {
            let events = lines(stdout).filter_map(|line| serde_json::from_slice::<Event>(&line).ok());
            events.for_each(heard);
            drop(told);
        });
        let said = scope.spawn(move || {
            let (mut last, mut refused) = (VecDeque::new(), None);
            for line in lines(stderr) {
                let line = String::from_utf8_lossy(&line).trim().to_string();
                refused = refused.or_else(|| line.starts_with(REFUSED).then(|| line.clone()));
                last.extend([line].into_iter().filter(|line| !line.is_empty()));
                last.drain(..last.len().saturating_sub(LAST_LINES));
            }
            refused.map_or(Vec::from(last), |refused| vec![refused])
        });
        while is_told.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            if watch.cancelled.load(Ordering::Relaxed) {
                drop(stdin.take());
            }
            if !is_late && timeout.is_some_and(|timeout| started.elapsed() > timeout) {
                is_late = true;
                child.kill()?;
            }
            used.look(child.id(), before);
        }
        drop(stdin);
        // Its last word: once it is waited for, nobody knows.
        while !used.look(child.id(), before) {
            std::thread::sleep(LAST_LOOK_EVERY);
        }
        let status = child.wait()?;
        Ok(EndOfChild { status, said: said.join().unwrap_or_default(), is_late })
    })
}

/// The lines that come out of a pipe, until it ends.
fn lines(pipe: Option<impl Read>) -> impl Iterator<Item = Vec<u8>> {
    pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).split(b'\n').map_while(std::result::Result::ok))
}

impl EndOfChild {
    /// That ended it.
    fn signal(&self) -> Option<i32> {
        #[cfg(unix)]
        return std::os::unix::process::ExitStatusExt::signal(&self.status);
        #[cfg(not(unix))]
        return None;
    }

    fn kind(&self) -> Kind {
        let is_refused = self.said.iter().any(|line| line.starts_with(REFUSED));
        match self.signal() {
            Some(_) if is_refused => Kind::Memory,
            // The system does so where memory runs out; who else did is not known.
            Some(KILL) => Kind::Memory,
            Some(_) => Kind::Killed,
            None => Kind::Final,
        }
    }

    fn told(&self) -> String {
        let hint = match self.signal() {
            Some(ABORT) if self.kind() == Kind::Memory => {
                ", out of memory: fewer --jobs, a smaller --memory or a larger --cell-memory"
            }
            Some(KILL) => ", as where memory runs out: fewer --jobs or a smaller --memory take less",
            _ => "",
        };
        let said = if self.said.is_empty() { String::new() } else { format!("; it said: {}", self.said.join(" / ")) };
        format!("{}{hint}{said}", self.status)
    }
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
        launched_with(script, jobs, cancelled, (0, None))
    }

    fn launched_with(
        script: &str,
        jobs: &[Job],
        cancelled: &AtomicBool,
        (retries, timeout): (u32, Option<Duration>),
    ) -> (Vec<Run>, Vec<Event>) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("child");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (runs, events) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let watch = Watch {
            claim: &|_| Ok(true),
            event: &|event| events.lock().unwrap().push(event),
            run: &|run| {
                runs.lock().unwrap().push(run);
                Ok(())
            },
            cancelled,
        };
        let places = vec![Place { device: "cpu".into(), threads: 1 }];
        let checkpoints = Checkpoints { folder: folder.path().join("partial"), every: Checkpoints::EVERY };
        Isolated { program, places, memory_bytes: Some(8), limit_bytes: None, checkpoints, retries, timeout }
            .launch(jobs, &watch)
            .unwrap();
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
        for part in ["signal: 9 (SIGKILL), as where memory runs out", "--memory=8", "/ dying"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!((record.status, &record.hashes), (Status::Failed, &jobs[0].hashes));
        assert_eq!((artefacts.traces[0].unit.as_str(), &artefacts.traces[0].loss[..]), ("stem", &[0.5][..]));
        assert!(artefacts.log.as_ref().unwrap().contains("SIGKILL"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_killed_children_took_of_processor_and_memory_is_recorded() {
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done; kill -9 $$";
        let (runs, _) = launched_with(busy, &[Job::sample()], &AtomicBool::new(false), (1, None));
        let cost = &runs[0].record.cost;
        assert!(cost.cpu_s > 0.02 && cost.cpu_s <= cost.wall_s, "{cost:?}");
    }

    #[test]
    fn children_that_leave_nothing_or_do_not_start_are_failures_too() {
        let error = |script: &str| {
            let (runs, _) = launched(script, &[Job::sample()], &AtomicBool::new(false));
            runs[0].record.error.clone().unwrap()
        };
        assert!(error("exit 0").contains("it left no run"));
        assert!(error("exit 96").contains("exit status: 96"));
        let mut nowhere = Isolated {
            program: "nowhere/harness".into(),
            places: Vec::new(),
            memory_bytes: None,
            limit_bytes: None,
            checkpoints: Checkpoints { folder: PathBuf::new(), every: Checkpoints::EVERY },
            retries: 0,
            timeout: None,
        };
        nowhere.places.push(Place { device: "cpu".into(), threads: 1 });
        let keep = |run: Run| {
            assert!(run.record.error.unwrap().contains("it cannot be started as nowhere/harness"));
            Ok(())
        };
        let watch = Watch { claim: &|_| Ok(true), event: &|_| (), run: &keep, cancelled: &AtomicBool::new(false) };
        nowhere.launch(&[Job::sample()], &watch).unwrap();
    }

    #[test]
    fn a_child_that_is_killed_is_tried_again_with_less_memory_and_one_that_fails_or_is_late_is_not() {
        let error = |script: &str, timeout: Option<Duration>| {
            let (runs, events) = launched_with(script, &[Job::sample()], &AtomicBool::new(false), (1, timeout));
            assert_eq!(events.len(), 1);
            runs[0].record.error.clone().unwrap()
        };
        let killed = error("echo \"$*\" >&2\nkill -9 $$", None);
        assert!(killed.contains("at attempt 2: signal: 9"), "{killed}");
        assert!(killed.contains("--memory=4 --eval-batch=16"), "{killed}");
        let refused = error("echo memory allocation of 8 bytes failed: \"$*\" >&2\nseq 9 >&2\nkill -ABRT $$", None);
        assert!(
            refused.contains("SIGABRT) (core dumped), out of memory") || refused.contains("SIGABRT), out of memory")
        );
        assert!(refused.contains("--memory=4 --eval-batch=16"), "{refused}");
        let crashed = error("echo \"$*\" >&2\nkill -SEGV $$", None);
        assert!(crashed.contains("at attempt 2: signal: 11"), "{crashed}");
        assert!(crashed.contains("--memory=8 ") && !crashed.contains("--eval-batch"), "{crashed}");
        assert!(error("exit 96", None).contains("the cell's process: exit status: 96"));
        let late = error("exec sleep 60", Some(Duration::from_millis(200)));
        assert!(late.contains("the cell's process: it took longer than 200ms"), "{late}");
    }

    #[test]
    fn a_child_hears_of_a_cancellation_and_leaves_no_run() {
        // Waits for the end of its standard input.
        let (runs, events) = launched("cat; exit 106", &[Job::sample(), Job::sample()], &AtomicBool::new(true));
        assert_eq!((runs.len(), events.len()), (0, 1));
    }
}
