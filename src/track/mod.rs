//! A grid as it runs, told to an MLflow server: runs when they begin, their losses as they come, all of them when they are stored.
//!
//! What happens is noted under a lock and sent by a thread of its own, so that no computation waits for a server. Nothing rests on what
//! is in between: points that find no place, or no server, are sent from the record when the run is stored, and runs whose end did not
//! arrive are noted in the [`Ledger`] of the folder, for the next start and for `harness export --mlflow`.

mod sender;

use crate::error::Result;
use crate::export::Keys;
use crate::export::mlflow::Value;
use crate::export::mlflow::server::Server;
use crate::launch::{Event, Job, What};
use crate::store::record::Record;
use crate::store::{Ledger, Store, since_1970};
use ptq::recon::event::Event as Progress;
use sender::Sender;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two sendings of what has come.
const PERIOD: Duration = Duration::from_secs(1);
/// Points that wait, at most: some minutes of losses of several cells.
const MOST_POINTS: usize = 20_000;
/// At the end of a grid: how long the server may be silent, how long it may take in all, and how long where the user wants to stop.
const SILENCE: Duration = Duration::from_secs(10);
const LAST: Duration = Duration::from_secs(120);
const LAST_IF_INTERRUPTED: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Follows the events of a grid.
pub struct Tracker {
    shared: Arc<Shared>,
    ledger: Ledger,
    server: String,
    /// Answers of the server so far.
    answers: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// What became of the runs of a grid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    pub sent: usize,
    /// Stored, and not yet there as a whole.
    pub left: usize,
    /// Whether it was said why.
    pub is_warned: bool,
    /// What of the artefacts the server does not take, and why.
    pub not_sent: Option<String>,
}

/// Between the grid's threads and the one that sends.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// The grid is over, or the sending.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    news: News,
    /// Runs of this process that have not ended, and what their numbers are called at the moment.
    running: HashMap<String, Option<Keys>>,
    is_over: bool,
    is_sent: bool,
    tracked: Tracked,
}

/// What has happened and was not sent yet.
#[derive(Default)]
struct News {
    /// Run ids, with milliseconds since 1970.
    begun: Vec<(String, u64)>,
    points: Vec<(String, (String, Value))>,
    ended: Vec<Record>,
}

impl Tracker {
    /// Tells `server` of the runs that are made of `jobs`, and first of those that an earlier grid in `store` could not tell it. `warn` is
    /// told at most once why something does not arrive.
    ///
    /// Errors: the ledger cannot be kept.
    pub fn start(server: Server, store: &Store, jobs: &[Job], warn: Box<dyn Fn(String) + Send>) -> Result<Self> {
        let (ledger, address, answers) = (store.ledger(), server.address().to_string(), server.answers());
        let folder_id = ledger.id()?;
        let shared = Arc::new(Shared::default());
        let pending: HashSet<&str> = jobs.iter().map(|job| job.run_id.as_str()).collect();
        let mut owed = ledger.owed(&address)?;
        owed.retain(|id| !pending.contains(id.as_str()));
        let sender = Sender::new(server, folder_id, store.clone(), jobs, warn);
        let for_thread = shared.clone();
        let thread = std::thread::spawn(move || sender.work(&for_thread, owed));
        Ok(Self { shared, ledger, server: address, answers, thread })
    }

    /// Takes notice of an event.
    pub fn note(&self, event: &Event) {
        let run_id = &event.run_id;
        match &event.what {
            What::Started => {
                // Before anything is computed: whatever ends this process, the next one knows. Where it cannot be written the run's own
                // folder cannot be either.
                self.ledger.owe(run_id, &self.server).ok();
                let mut queue = self.shared.lock();
                queue.running.insert(run_id.clone(), None);
                queue.news.begun.push((run_id.clone(), now_ms()));
            }
            What::Progress(Progress::PhaseBegun { unit, phase, terms }) => {
                let keys = Keys::new(unit, phase, terms.iter().map(|term| term.name.as_str()));
                if let Some(current) = self.shared.lock().running.get_mut(run_id) {
                    *current = Some(keys);
                }
            }
            What::Progress(Progress::Point(point)) => {
                let mut queue = self.shared.lock();
                let Queue { news, running, .. } = &mut *queue;
                if let (Some(Some(keys)), true) = (running.get(run_id), news.points.len() < MOST_POINTS) {
                    let at_ms = now_ms();
                    news.points.extend(keys.values(point).into_iter().map(|(key, value)| {
                        // As the record will have it: JSON has neither infinity.
                        let value = if value.is_finite() { value } else { f64::NAN };
                        (run_id.clone(), (key, Value { value, at_ms, step: point.iteration }))
                    }));
                }
            }
            What::Progress(_) | What::Elsewhere { .. } => {}
            What::Finished(record) => {
                let mut queue = self.shared.lock();
                // Those of other processes are told by them.
                if queue.running.remove(run_id).is_some() {
                    queue.news.ended.push(Record::clone(record));
                    queue.tracked.left += 1;
                }
            }
        }
    }

    /// The grid is over: waits a little for what is still to be sent.
    pub fn finish(self, is_interrupted: bool) -> Tracked {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        let until = Instant::now() + if is_interrupted { LAST_IF_INTERRUPTED } else { LAST };
        let (mut answers, mut heard) = (self.answers.load(Ordering::Relaxed), Instant::now());
        let mut queue = self.shared.lock();
        while !queue.is_sent && Instant::now() < until && heard.elapsed() < SILENCE && !self.thread.is_finished() {
            let waited = self.shared.changed.wait_timeout(queue, LOOK_EVERY);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            let now = self.answers.load(Ordering::Relaxed);
            if now != answers {
                (answers, heard) = (now, Instant::now());
            }
        }
        // What did not arrive by now waits in the folder; the thread ends with the process.
        queue.tracked.clone()
    }
}

impl Shared {
    /// What a panicking thread left in it is still a queue.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has come in the next moment, and whether it was the last.
    fn news(&self, patience: Duration) -> (News, bool) {
        let guard = self.lock();
        let waited = self.changed.wait_timeout_while(guard, patience, |queue| !queue.is_over);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        (std::mem::take(&mut queue.news), queue.is_over)
    }
}

/// As MLflow has times.
pub fn now_ms() -> u64 {
    since_1970().as_millis() as u64
}
