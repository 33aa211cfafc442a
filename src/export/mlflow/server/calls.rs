//! What a server is asked about experiments and runs, one call each.

use super::super::super::RUN_ID;
use super::super::on_server::{OnServer, pair, text};
use super::super::rest::Failure;
use super::{ID, OTHERS_AT_ONCE, Server};
use reqwest::Url;
use serde_json::{Value as Json, json};

impl Server {
    /// The id of the experiment called `name`, which is made if it is missing.
    pub(super) fn experiment(&mut self, name: &str) -> Result<String, Failure> {
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
    pub(super) fn known_experiment(&mut self, name: &str) -> Result<Option<String>, Failure> {
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
    pub(super) fn runs(&self, experiment: &str, identity: &str) -> Result<Vec<OnServer>, Failure> {
        self.runs_with(experiment, ID, identity)
    }

    /// Runs of this id and beginning that are not in the bin and were never sent: `mlflow migrate-filestore` makes them of a file store.
    pub(super) fn migrated(&self, experiment: &str, run_id: &str, start_ms: u64) -> Result<Vec<OnServer>, Failure> {
        let mut runs = self.runs_with(experiment, RUN_ID, run_id)?;
        runs.retain(|run| !run.tags.contains_key(ID) && !run.is_unfinished() && run.start_ms == start_ms);
        Ok(runs)
    }

    fn runs_with(&self, experiment: &str, tag: &str, value: &str) -> Result<Vec<OnServer>, Failure> {
        // Neither ids nor identities have quotes.
        let filter = format!("tags.`{tag}` = '{}'", value.replace('\'', ""));
        let question = json!({ "experiment_ids": [experiment], "filter": filter, "run_view_type": "ACTIVE_ONLY", "max_results": 100 });
        let answer = self.rest.post("runs/search", &question)?;
        let runs = answer.pointer("/runs").and_then(Json::as_array);
        let mut runs = runs.into_iter().flatten().map(OnServer::of).collect::<Result<Vec<_>, _>>()?;
        runs.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(runs)
    }

    pub(super) fn create(
        &self,
        experiment: &str,
        (name, start_ms): (&str, u64),
        mut tags: Vec<(String, String)>,
        identity: &str,
    ) -> Result<OnServer, Failure> {
        tags.push((ID.to_string(), identity.to_string()));
        // What else there is of tags comes later.
        tags.retain(|(key, _)| key == ID || key.starts_with("mlflow.") || key == RUN_ID);
        let tags: Vec<Json> = tags.iter().map(|(key, value)| pair((key, value))).collect();
        let run = json!({ "experiment_id": experiment, "run_name": name, "start_time": start_ms, "tags": tags });
        let answer = self.rest.post("runs/create", &run)?;
        OnServer::of(answer.pointer("/run").unwrap_or(&Json::Null))
    }

    pub(super) fn update(&self, run: &OnServer, status: &str, end_ms: Option<u64>) -> Result<(), Failure> {
        let mut update = json!({ "run_id": run.id, "status": status });
        if let (Some(end_ms), Some(fields)) = (end_ms, update.as_object_mut()) {
            fields.insert("end_time".to_string(), end_ms.into());
        }
        self.rest.post("runs/update", &update).map(drop)
    }

    pub(super) fn delete(&self, runs: &[OnServer]) -> Result<(), Failure> {
        runs.iter().try_for_each(|run| self.rest.post("runs/delete", &json!({ "run_id": run.id })).map(drop))
    }

    pub(super) fn tag(&self, run: &OnServer, key: &str, value: &str) -> Result<(), Failure> {
        self.rest.post("runs/set-tag", &json!({ "run_id": run.id, "key": key, "value": value })).map(drop)
    }

    pub(super) fn log_params(&self, run: &OnServer, params: &[(String, String)]) -> Result<(), Failure> {
        let new = params.iter().filter(|(key, _)| !run.params.contains_key(key));
        let new: Vec<Json> = new.map(|(key, value)| pair((key, value))).collect();
        new.chunks(OTHERS_AT_ONCE).try_for_each(|some| self.log_batch(&run.id, "params", some))
    }

    /// In as many parts as the server takes.
    pub(super) fn log_batch(&self, run_id: &str, kind: &str, items: &[Json]) -> Result<(), Failure> {
        match self.rest.post("runs/log-batch", &json!({ "run_id": run_id, kind: items })) {
            Err(failure) if failure.is_too_large() && items.len() > 1 => {
                let (one, other) = items.split_at(items.len() / 2);
                self.log_batch(run_id, kind, one)?;
                self.log_batch(run_id, kind, other)
            }
            answer => answer.map(drop),
        }
    }

    /// Where the server's proxy keeps the artefacts of `run`; `None` where it keeps none itself.
    pub(super) fn artefact_path(&self, run: &OnServer) -> Option<String> {
        let uri = Url::parse(&run.artifact_uri).ok()?;
        let is_here = uri.host_str().is_none_or(|host| host.is_empty() || Some(host) == self.address.url().host_str());
        let path = percent_encoding::percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
        (uri.scheme() == "mlflow-artifacts" && is_here).then_some(path)
    }
}
