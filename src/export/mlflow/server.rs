//! MLflow's server: runs are sent over its REST interface, as often as one likes, and are there once.
//!
//! The server gives runs their ids; by the tag `harness.id` a run is found again, which is the same whenever a folder of results sends it,
//! and another for the same cell in another folder. A run that is there as a whole has a tag with a hash of what it was made of; one that
//! has not is gone on with: of each number what is not there yet is sent. One that was made anew since replaces the one from before, which
//! is then in MLflow's bin, and takes over what people noted there.

use super::on_server::{OnServer, is_same, metric, number, pair, text};
use super::rest::{Credentials, Failure, Rest};
use super::{Content, DIGEST, Run, Value, Written, annotations, artefacts, digest, first_tags, params};
use crate::disk::sha256;
use crate::error::{Error, Result};
use crate::experiment::Cell;
use crate::http::Address;
use reqwest::Url;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, HashSet};
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
    artefacts_elsewhere: Option<String>,
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
        Ok(Self { rest, address, experiments: BTreeMap::new(), artefacts_elsewhere: None })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How many answers it gave, which goes on counting.
    pub fn answers(&self) -> Arc<AtomicUsize> {
        self.rest.answers()
    }

    /// Where the server has clients put artefacts themselves, in a storage that they were not sent to, if it does.
    pub fn artefacts_elsewhere(&self) -> Option<&str> {
        self.artefacts_elsewhere.as_deref()
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

    /// Sends what of `points` is not there.
    pub fn log(&self, run: &mut OnServer, points: &[(String, Value)]) -> Result<(), Failure> {
        for (key, _) in points {
            self.read_held(run, key)?;
        }
        let is_new =
            |(key, value): &&(String, Value)| !run.held.get(key).is_some_and(|held| held.contains_key(&value.step));
        // What was told twice while the server was away.
        let mut once = HashSet::new();
        let new = points.iter().filter(is_new).filter(|&(key, value)| once.insert((key, value.step)));
        let new: Vec<&(String, Value)> = new.collect();
        for some in new.chunks(METRICS_AT_ONCE) {
            let sent = self.log_batch(
                &run.id,
                "metrics",
                &some.iter().map(|(key, value)| metric(key, value)).collect::<Vec<_>>(),
            );
            for (key, value) in some {
                match &sent {
                    Ok(()) => drop(run.held.entry(key.clone()).or_default().insert(value.step, value.value)),
                    // Nobody knows what arrived.
                    Err(_) => drop(run.unread.insert(key.clone())),
                }
            }
            sent?;
        }
        Ok(())
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
    pub fn send(&mut self, run: &Run, identity: &str, open: Option<OnServer>) -> Result<Written, Failure> {
        // Where artefacts go does not matter: the server knows.
        let (content, digest) = (Content::of(run), digest(run, "")?);
        let experiment = self.experiment(&content.experiment)?;
        let mut there = self.runs(&experiment, identity)?;
        if let Some(at) = there.iter().position(|there| there.tags.get(DIGEST) == Some(&digest)) {
            let whole = there.swap_remove(at);
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

    /// Sends all of a run that `target` lacks; `before`: those that it replaces. The digest comes last, when all the rest is there.
    fn fill(
        &mut self,
        target: &mut OnServer,
        (run, content, digest): (&Run, &Content, &str),
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
        match self.artefact_path(target) {
            Some(path) => artefacts(run, |name, content| {
                let bytes = content.len();
                self.rest
                    .put_artefact(&format!("{path}/{name}"), content)
                    .map_err(|failure| of_artefact(failure, name, bytes))
            })?,
            None => self.artefacts_elsewhere = Some(target.artifact_uri.clone()),
        }
        self.tag(target, DIGEST, digest)
    }

    /// The id of the experiment called `name`, which is made if it is missing.
    fn experiment(&mut self, name: &str) -> Result<String, Failure> {
        if let Some(id) = self.known_experiment(name)? {
            return Ok(id);
        }
        let made = match self.rest.post("experiments/create", &json!({ "name": name })) {
            // Another process was faster.
            Err(Failure::Refused { code, .. }) if code == "RESOURCE_ALREADY_EXISTS" => self.known_experiment(name)?,
            made => Some(text(&made?, "/experiment_id")),
        };
        let id = made.filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| Failure::Malformed("it makes an experiment and gives no id of it".to_string()))?;
        self.experiments.insert(name.to_string(), id.clone());
        Ok(id)
    }

    /// The same if there is one. Errors: it was deleted.
    fn known_experiment(&mut self, name: &str) -> Result<Option<String>, Failure> {
        if let Some(id) = self.experiments.get(name) {
            return Ok(Some(id.clone()));
        }
        let answer = match self.rest.get("experiments/get-by-name", &[("experiment_name", name)]) {
            Err(failure) if failure.is_missing() => return Ok(None),
            answer => answer?,
        };
        let id = text(&answer, "/experiment/experiment_id");
        if id.is_empty() {
            return Err(Failure::Malformed("it gives no id of an experiment".to_string()));
        }
        if text(&answer, "/experiment/lifecycle_stage") == "deleted" {
            return Err(Failure::InBin { name: name.to_string(), id });
        }
        self.experiments.insert(name.to_string(), id.clone());
        Ok(Some(id))
    }

    /// The runs of this identity that are not in the bin, in an order that does not change.
    fn runs(&self, experiment: &str, identity: &str) -> Result<Vec<OnServer>, Failure> {
        let filter = format!("tags.`{ID}` = '{identity}'");
        let question = json!({ "experiment_ids": [experiment], "filter": filter, "run_view_type": "ACTIVE_ONLY", "max_results": 100 });
        let answer = self.rest.post("runs/search", &question)?;
        let runs = answer.pointer("/runs").and_then(Json::as_array);
        let mut runs = runs.into_iter().flatten().map(OnServer::of).collect::<Result<Vec<_>, _>>()?;
        runs.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(runs)
    }

    fn create(
        &self,
        experiment: &str,
        (name, start_ms): (&str, u64),
        mut tags: Vec<(String, String)>,
        identity: &str,
    ) -> Result<OnServer, Failure> {
        tags.push((ID.to_string(), identity.to_string()));
        // What else there is of tags comes later.
        tags.retain(|(key, _)| key == ID || key.starts_with("mlflow.") || key == "harness.run_id");
        let tags: Vec<Json> = tags.iter().map(|(key, value)| pair((key, value))).collect();
        let run = json!({ "experiment_id": experiment, "run_name": name, "start_time": start_ms, "tags": tags });
        let answer = self.rest.post("runs/create", &run)?;
        OnServer::of(answer.pointer("/run").unwrap_or(&Json::Null))
    }

    fn update(&self, run: &OnServer, status: &str, end_ms: Option<u64>) -> Result<(), Failure> {
        let mut update = json!({ "run_id": run.id, "status": status });
        if let (Some(end_ms), Some(fields)) = (end_ms, update.as_object_mut()) {
            fields.insert("end_time".to_string(), end_ms.into());
        }
        self.rest.post("runs/update", &update).map(drop)
    }

    fn delete(&self, runs: &[OnServer]) -> Result<(), Failure> {
        runs.iter().try_for_each(|run| self.rest.post("runs/delete", &json!({ "run_id": run.id })).map(drop))
    }

    fn tag(&self, run: &OnServer, key: &str, value: &str) -> Result<(), Failure> {
        self.rest.post("runs/set-tag", &json!({ "run_id": run.id, "key": key, "value": value })).map(drop)
    }

    /// Has the tags of what people said here be those there.
    fn annotate(&self, on_server: &OnServer, run: &Run) -> Result<(), Failure> {
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

    fn log_params(&self, run: &OnServer, params: &[(String, String)]) -> Result<(), Failure> {
        let new = params.iter().filter(|(key, _)| !run.params.contains_key(key));
        let new: Vec<Json> = new.map(|(key, value)| pair((key, value))).collect();
        new.chunks(OTHERS_AT_ONCE).try_for_each(|some| self.log_batch(&run.id, "params", some))
    }

    /// In as many parts as the server takes.
    fn log_batch(&self, run_id: &str, kind: &str, items: &[Json]) -> Result<(), Failure> {
        match self.rest.post("runs/log-batch", &json!({ "run_id": run_id, kind: items })) {
            Err(failure) if failure.is_too_large() && items.len() > 1 => {
                let (one, other) = items.split_at(items.len() / 2);
                self.log_batch(run_id, kind, one)?;
                self.log_batch(run_id, kind, other)
            }
            answer => answer.map(drop),
        }
    }

    /// Learns what is there of `key`, if that is not known.
    fn read_held(&self, run: &mut OnServer, key: &str) -> Result<(), Failure> {
        if !run.unread.contains(key) {
            return Ok(());
        }
        let (mut held, mut token) = (BTreeMap::new(), String::new());
        loop {
            let mut question = vec![("run_id", run.id.as_str()), ("metric_key", key), ("max_results", PAGE)];
            question.extend(Some(("page_token", token.as_str())).filter(|(_, token)| !token.is_empty()));
            let answer = self.rest.get("metrics/get-history", &question)?;
            let points = answer.pointer("/metrics").and_then(Json::as_array).cloned().unwrap_or_default();
            for point in &points {
                let step = number(&point["step"]) as usize;
                let value = number(&point["value"]);
                // Of several at a step one that differs is what matters.
                held.entry(step)
                    .and_modify(|held| *held = if is_same(*held, value) { value } else { f64::INFINITY })
                    .or_insert(value);
            }
            token = text(&answer, "/next_page_token");
            if token.is_empty() || points.is_empty() {
                break;
            }
        }
        run.held.insert(key.to_string(), held);
        run.unread.remove(key);
        Ok(())
    }

    /// Whether `there` holds nothing but what `content` has.
    fn agrees(&self, there: &mut OnServer, content: &Content) -> Result<bool, Failure> {
        if !there.agrees_in(&content.params) {
            return Ok(false);
        }
        for (key, values) in &content.metrics {
            self.read_held(there, key)?;
            let Some(held) = there.held.get(key) else { continue };
            let values: BTreeMap<usize, f64> = values.iter().map(|value| (value.step, value.value)).collect();
            let is_ours = |(step, value): (&usize, &f64)| values.get(step).is_some_and(|ours| is_same(*ours, *value));
            if !held.iter().all(is_ours) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where the server's proxy keeps the artefacts of `run`; `None` where it keeps none itself.
    fn artefact_path(&self, run: &OnServer) -> Option<String> {
        let uri = Url::parse(&run.artifact_uri).ok()?;
        let is_here = uri.host_str().is_none_or(|host| host.is_empty() || Some(host) == self.address.url().host_str());
        let path = percent_encoding::percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
        (uri.scheme() == "mlflow-artifacts" && is_here).then_some(path)
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
