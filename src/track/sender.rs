//! The thread that sends what a grid's threads noted, one request after the other.

use super::{News, PERIOD, Shared, now_ms};
use crate::error::Result;
use crate::export::Exported;
use crate::export::mlflow::server::{Beginning, Server, identity};
use crate::export::mlflow::{Failure, OnServer, Scope, Value};
use crate::launch::Job;
use crate::store::record::Record;
use crate::store::{Store, Stored};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// After the first failure in a row, and at most, until the server is asked again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Points of one run that wait, at most.
const MOST_POINTS_OF_RUN: usize = 20_000;

pub(super) struct Sender {
    server: Server,
    /// Of the folder of runs.
    folder_id: String,
    store: Store,
    jobs: HashMap<String, Job>,
    warn: Box<dyn Fn(String) + Send>,
    /// By run id, those that go on.
    running: BTreeMap<String, Running>,
    ended: VecDeque<Ended>,
    /// After a failure that may pass.
    pause: Duration,
    asked_again_at: Instant,
    gave_up: bool,
}

struct Running {
    began_ms: u64,
    /// `None` until the server knows of it.
    there: Option<OnServer>,
    points: Vec<(String, Value)>,
}

struct Ended {
    record: Record,
    there: Option<OnServer>,
}

impl Sender {
    pub fn new(
        server: Server,
        folder_id: String,
        store: Store,
        jobs: &[Job],
        warn: Box<dyn Fn(String) + Send>,
    ) -> Self {
        Self {
            server,
            folder_id,
            store,
            jobs: jobs.iter().map(|job| (job.run_id.clone(), job.clone())).collect(),
            warn,
            running: BTreeMap::new(),
            ended: VecDeque::new(),
            pause: FIRST_PAUSE,
            asked_again_at: Instant::now(),
            gave_up: false,
        }
    }

    /// Sends until the grid is over and nothing is left that can be sent; `owed`: stored runs from before.
    pub fn work(mut self, shared: &Shared, owed: Vec<String>) {
        let owed = owed.into_iter().filter_map(|id| self.store.record(&id));
        self.ended.extend(owed.map(|record| Ended { record, there: None }));
        shared.lock().tracked.left += self.ended.len();
        loop {
            let patience = if self.ended.is_empty() || self.is_waiting() { PERIOD } else { Duration::ZERO };
            let (news, is_over) = shared.news(patience);
            self.take(news);
            if !self.gave_up && (is_over || !self.is_waiting()) {
                let sent = self.send(shared, is_over);
                self.heed(sent, shared);
            }
            // The last attempt was made, and nothing is left that it could have sent.
            if is_over && (self.ended.is_empty() || self.gave_up || self.is_waiting()) {
                break;
            }
        }
        let mut queue = shared.lock();
        queue.tracked.not_sent = self.server.not_sent().map(str::to_string);
        queue.is_sent = true;
        shared.changed.notify_all();
    }

    fn is_waiting(&self) -> bool {
        Instant::now() < self.asked_again_at
    }

    fn take(&mut self, News { begun, points, ended }: News) {
        for (run_id, began_ms) in begun {
            self.running.insert(run_id, Running { began_ms, there: None, points: Vec::new() });
        }
        for (run_id, point) in points {
            if let Some(running) = self.running.get_mut(&run_id)
                && running.points.len() < MOST_POINTS_OF_RUN
            {
                running.points.push(point);
            }
        }
        for record in ended {
            let there = self.running.remove(&record.run_id).and_then(|running| running.there);
            self.ended.push_back(Ended { record, there });
        }
    }

    /// What is new of the runs that go on, or were stopped if the grid is over, and one that has ended, if there is one.
    ///
    /// Errors: of the server, not of one run.
    fn send(&mut self, shared: &Shared, is_over: bool) -> Result<(), Failure> {
        self.send_running(is_over)?;
        match self.ended.pop_front() {
            Some(ended) => self.end(ended, shared),
            None => Ok(()),
        }
    }

    fn send_running(&mut self, is_over: bool) -> Result<(), Failure> {
        let Self { server, folder_id, store, jobs, running, .. } = self;
        let experiment = experiment_of(store);
        for (run_id, running) in running.iter_mut() {
            let Some(job) = jobs.get(run_id) else { continue };
            let (cell, grid, at_ms) = (&job.cell, job.grid.as_str(), running.began_ms);
            let told = (|| {
                let there = match &mut running.there {
                    Some(there) => there,
                    none => none.insert(server.begin(
                        &Beginning { experiment: &experiment, run_id, grid, cell, at_ms },
                        &identity(folder_id, run_id),
                    )?),
                };
                server.log(there, &std::mem::take(&mut running.points))?;
                // The user stopped it. If that does not arrive, the next start goes on with it all the same.
                if is_over { server.kill(there, now_ms()) } else { Ok(()) }
            })();
            // What one run is refused for its end will name, if it is not over then.
            told.or_else(|failure| if failure.scope() == Scope::Run { Ok(()) } else { Err(failure) })?;
        }
        if is_over {
            running.clear();
        }
        Ok(())
    }

    /// Sends a run as it is stored. One that the server refuses is left in the ledger; one that it cannot take now is tried again.
    fn end(&mut self, Ended { record, there }: Ended, shared: &Shared) -> Result<(), Failure> {
        let run_id = record.run_id.clone();
        let stored = Stored::read(&experiment_of(&self.store), self.store.run_folder(&run_id), record);
        let sent = Exported::read(&stored)
            .map_err(Failure::from)
            .and_then(|run| self.server.send(&run, &identity(&self.folder_id, &run_id), there));
        match sent {
            Ok(_) => {
                self.store.ledger().settle(&run_id, &self.server.address().to_string());
                let mut queue = shared.lock();
                queue.tracked.sent += 1;
                queue.tracked.left -= 1;
                Ok(())
            }
            Err(failure) if failure.scope() == Scope::Run => {
                self.tell(&failure, Some(&run_id), shared);
                Ok(())
            }
            Err(failure) => {
                // Behind the others: it may be this run that the server cannot cope with.
                self.ended.push_back(Ended { record: stored.record, there: None });
                Err(failure)
            }
        }
    }

    /// Decides when the server is asked again.
    fn heed(&mut self, sent: Result<(), Failure>, shared: &Shared) {
        match sent {
            Ok(()) => (self.pause, self.asked_again_at) = (FIRST_PAUSE, Instant::now()),
            Err(failure) => {
                self.tell(&failure, None, shared);
                self.gave_up = failure.scope() == Scope::Server;
                self.asked_again_at = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Warns, the first time.
    fn tell(&self, failure: &Failure, run_id: Option<&str>, shared: &Shared) {
        if !std::mem::replace(&mut shared.lock().tracked.is_warned, true) {
            let of_run = run_id.map(|run_id| format!(" ({run_id})")).unwrap_or_default();
            (self.warn)(format!("{}{of_run}", self.server.error(failure)));
        }
    }
}

/// The name of the experiment's folder.
fn experiment_of(store: &Store) -> String {
    store.folder().file_name().unwrap_or_default().to_string_lossy().into_owned()
}
