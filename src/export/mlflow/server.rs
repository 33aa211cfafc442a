//! MLflow's server: runs are sent over its REST interface, as often as one likes, and are there once.
//!
//! The server gives runs their ids; by the tag `harness.id` a run is found again, which is the same whenever a folder of results sends it,
//! and another for the same cell in another folder. A run that is there as a whole has a tag with a hash of what it was made of; one that
//! has not is gone on with: of each number what is not there yet is sent. One that was made anew since replaces the one from before, which
//! is then in MLflow's bin, and takes over what people noted there. What `mlflow migrate-filestore` made of a run in a file store, which has no
//! such tag, is known by the run's id and beginning.

mod calls;
mod points;

use super::on_server::{OnServer, pair};
use super::rest::{Credentials, Failure, Rest};
use super::{
    Content, DIGEST, Exported, MODEL, Value, Written, annotations, artefacts, digest, first_tags, params, place_of,
};
use crate::disk::sha256;
use crate::error::{Error, Result};
use crate::experiment::Cell;
use crate::http::Address;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// The tag that tells whose a run is.
const ID: &str = "harness.id";
/// What people write to a run on MLflow's pages, with the prefix of all that is not theirs.
const DESCRIPTION: &str = "mlflow.note.content";
const NOT_OF_PEOPLE: [&str; 2] = ["mlflow.", "harness."];
/// The most that MLflow takes at once.
const METRICS_AT_ONCE: usize = 1000;
const OTHERS_AT_ONCE: usize = 100;
/// Points of a metric that are asked for at once.
const PAGE: &str = "25000";

/// A server, and what was learned of it.
pub struct Server {
    rest: Rest,
    address: Address,
    /// Ids of experiments by name.
    experiments: BTreeMap<String, String>,
    not_sent: Option<String>,
}

/// A run that has not begun, or only just.
pub struct Beginning<'a> {
    pub experiment: &'a str,
    pub run_id: &'a str,
    /// The grid file.
    pub grid: &'a str,
    pub cell: &'a Cell,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// What runs of a folder of results are called on servers: by the folder's id and the run's.
pub fn identity(folder_id: &str, run_id: &str) -> String {
    sha256(&[format!("{folder_id}\n{run_id}").as_bytes()])[..32].to_string()
}

impl Server {
    /// Asks nothing yet. Errors: credentials that cannot be sent.
    pub fn new(address: Address, credentials: Credentials) -> Result<Self> {
        let rest = Rest::new(&address, credentials)?;
        Ok(Self { rest, address, experiments: BTreeMap::new(), not_sent: None })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How many answers it gave, which goes on counting.
    pub fn answers(&self) -> Arc<AtomicUsize> {
        self.rest.answers()
    }

    /// Of artefacts that stay in the folder of results, the first: what was not sent to this server, and why.
    pub fn not_sent(&self) -> Option<&str> {
        self.not_sent.as_deref()
    }

    /// The error that the user reads.
    pub fn error(&self, failure: &Failure) -> Error {
        match failure {
            // Not the server's.
            Failure::Local(error) => Error::Report(error.to_string()),
            failure => Error::Tracker { server: self.address.to_string(), problem: failure.problem() },
        }
    }

    /// The run of this identity that goes on, or a new one: with its parameters, as running.
    pub fn begin(&mut self, beginning: &Beginning, identity: &str) -> Result<OnServer, Failure> {
        let experiment = self.experiment(beginning.experiment)?;
        let params = params(beginning.cell);
        let mut unfinished = self.runs(&experiment, identity)?;
        unfinished.retain(|run| run.is_unfinished());
        let at = unfinished.iter().position(|run| run.agrees_in(&params));
        let run = match at.map(|at| unfinished.swap_remove(at)) {
            Some(run) => {
                self.update(&run, "RUNNING", None)?;
                run
            }
            None => {
                let tags = first_tags(beginning.run_id, beginning.grid);
                self.create(&experiment, (beginning.run_id, beginning.at_ms), tags, identity)?
            }
        };
        self.log_params(&run, &params)?;
        // Where an answer was lost, the same was begun twice.
        self.delete(&unfinished)?;
        Ok(run)
    }

    /// Says that the run was ended before its time.
    pub fn kill(&self, run: &OnServer, at_ms: u64) -> Result<(), Failure> {
        self.update(run, "KILLED", Some(at_ms))
    }

    /// The same of a run that no process makes any more, if it is there as running; nothing is made for it.
    pub fn kill_forsaken(&mut self, experiment: &str, identity: &str, at_ms: u64) -> Result<(), Failure> {
        let Some(experiment) = self.known_experiment(experiment)? else { return Ok(()) };
        let runs = self.runs(&experiment, identity)?;
        runs.iter().filter(|run| run.is_unfinished() && run.is_running).try_for_each(|run| self.kill(run, at_ms))
    }

    /// Has all of a stored run be there; `open` is what [`begin`](Self::begin) gave for it, if that is known.
    pub fn send(&mut self, run: &Exported, identity: &str, open: Option<OnServer>) -> Result<Written, Failure> {
        // Where artefacts go does not matter: the server knows.
        let (content, digest) = (Content::of(run), digest(run, "")?);
        let experiment = self.experiment(&content.experiment)?;
        let mut there = self.runs(&experiment, identity)?;
        if there.is_empty() {
            there = self.migrated(&experiment, &content.name, content.start_ms)?;
        }
        if let Some(at) = self.whole(&there, run, &digest)? {
            let whole = there.swap_remove(at);
            if whole.tags.get(ID).is_none_or(|there| there != identity) {
                self.tag(&whole, ID, identity)?;
            }
            self.annotate(&whole, run)?;
            self.delete(&there)?;
            return Ok(Written::Unchanged);
        }
        if let Some(open) = open
            && let Some(run) = there.iter_mut().find(|there| there.id == open.id)
        {
            (run.held, run.unread) = (open.held, open.unread);
        }
        let mut target = None;
        for at in 0..there.len() {
            if there[at].is_unfinished() && self.agrees(&mut there[at], &content)? {
                target = Some(there.swap_remove(at));
                break;
            }
        }
        let is_replaced = there.iter().any(|there| !there.is_unfinished());
        let mut target = match target {
            Some(target) => target,
            None => self.create(&experiment, (&content.name, content.start_ms), content.tags.clone(), identity)?,
        };
        self.fill(&mut target, (run, &content, &digest), &there)?;
        self.delete(&there)?;
        Ok(if is_replaced { Written::Replaced } else { Written::New })
    }

    /// Which of `there` is all of `run`, whose `digest` this is on a server; what comes from a file store has the one that it had there.
    fn whole(&self, there: &[OnServer], run: &Exported, on_server: &str) -> Result<Option<usize>, Failure> {
        for (at, there) in there.iter().enumerate() {
            let Some(known) = there.tags.get(DIGEST) else { continue };
            let is_whole = match place_of(&there.artifact_uri) {
                Some(place) if known != on_server => *known == digest(run, &place)?,
                _ => known == on_server,
            };
            if is_whole {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Sends all of a run that `target` lacks; `before`: those that it replaces. The digest comes last, when all the rest is there.
    fn fill(
        &mut self,
        target: &mut OnServer,
        (run, content, digest): (&Exported, &Content, &str),
        before: &[OnServer],
    ) -> Result<(), Failure> {
        self.log_params(target, &content.params)?;
        let noted = before.iter().flat_map(|before| &before.tags).filter(|(key, _)| is_of_people(key));
        let noted = noted.filter(|(key, _)| !target.tags.contains_key(*key));
        let tags: Vec<Json> = noted.chain(content.tags.iter().map(|(key, value)| (key, value))).map(pair).collect();
        for some in tags.chunks(OTHERS_AT_ONCE) {
            self.log_batch(&target.id, "tags", some)?;
        }
        self.annotate(target, run)?;
        let points: Vec<(String, Value)> =
            content.metrics.iter().flat_map(|(key, values)| values.iter().map(|value| (key.clone(), *value))).collect();
        self.log(target, &points)?;
        self.update(target, if content.is_done { "FINISHED" } else { "FAILED" }, Some(content.end_ms))?;
        self.put_artefacts(target, run)?;
        self.tag(target, DIGEST, digest)
    }

    fn put_artefacts(&mut self, target: &OnServer, run: &Exported) -> Result<(), Failure> {
        let Some(path) = self.artefact_path(target) else {
            self.not_sent = Some(format!(
                "was sent no artefacts, since it has clients put them to {} themselves; they stay in the folder of results \
                 (`mlflow server --serve-artifacts` takes them)",
                target.artifact_uri
            ));
            return Ok(());
        };
        artefacts(run, |name, content| {
            let bytes = content.len();
            match self.rest.put_artefact(&format!("{path}/{name}"), content) {
                // The run is worth more than its network.
                Err(failure) if failure.is_too_large() && MODEL.contains(&name) => {
                    self.not_sent.get_or_insert_with(|| {
                        let run_id = &run.stored.record.run_id;
                        format!("does not take the {bytes} bytes of {name} of {run_id} (status 413); it stays in the folder of results")
                    });
                    Ok(())
                }
                put => put.map_err(|failure| of_artefact(failure, name, bytes)),
            }
        })
    }

    /// Has the tags of what people said here be those there.
    fn annotate(&self, on_server: &OnServer, run: &Exported) -> Result<(), Failure> {
        for (key, value) in annotations(run) {
            match (value.is_empty(), on_server.tags.get(key)) {
                (true, None) => {}
                (true, Some(_)) => {
                    self.rest.post("runs/delete-tag", &json!({ "run_id": on_server.id, "key": key }))?;
                }
                (false, there) if there == Some(&value) => {}
                (false, _) => self.tag(on_server, key, &value)?,
            }
        }
        Ok(())
    }
}

/// Whether `key` is a tag that people gave on the server.
fn is_of_people(key: &str) -> bool {
    key == DESCRIPTION || !NOT_OF_PEOPLE.iter().any(|prefix| key.starts_with(prefix))
}

fn of_artefact(failure: Failure, name: &str, bytes: usize) -> Failure {
    match failure {
        Failure::Refused { status, code, message } if status == 413 => {
            let said = if message.is_empty() { String::new() } else { format!(": {message}") };
            Failure::Refused { status, code, message: format!("artefact {name}, {bytes} bytes{said}") }
        }
        failure => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_on_the_server_is_told_from_the_rest() {
        let of_people = ["mlflow.note.content", "mlflow.user", "harness.notes", "paper"].map(is_of_people);
        assert_eq!(of_people, [true, false, false, true]);
    }
}
