//! An MLflow server on loopback, as far as the harness asks it: what it holds is in memory, and tests change what it does while it runs.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What the server holds and does.
#[derive(Default)]
pub struct State {
    /// By id, which is the place and 1.
    pub experiments: Vec<String>,
    pub runs: Vec<TestRun>,
    /// Every request, with what it was authorised by.
    pub requests: Vec<(String, Option<String>)>,
    /// Every request gets this status.
    pub refusal: Option<u16>,
    /// Every request is sent there.
    pub redirect: Option<String>,
    /// Requests wait.
    pub is_silent: bool,
    /// Larger bodies get 413.
    pub largest_body: Option<usize>,
    /// So many requests are done and not answered.
    pub lost_answers: usize,
}

#[derive(Clone, Debug, Default)]
pub struct TestRun {
    pub id: String,
    pub experiment: String,
    pub status: String,
    pub start_time: u64,
    pub end_time: u64,
    pub is_deleted: bool,
    pub params: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    /// Key, step, value as text and time: the same of all four is there once.
    pub metrics: BTreeSet<(String, u64, String, u64)>,
    pub artefacts: BTreeMap<String, Vec<u8>>,
    /// Where they lie, if not with the server.
    pub artifact_uri: Option<String>,
}

impl TestRun {
    /// Steps and values of a metric.
    pub fn history(&self, key: &str) -> Vec<(u64, f64)> {
        let of_key = self.metrics.iter().filter(|(other, ..)| other == key);
        of_key.map(|(_, step, value, _)| (*step, value.trim_matches('"').parse().unwrap())).collect()
    }

    fn json(&self) -> Value {
        let pairs = |pairs: &BTreeMap<String, String>| -> Vec<Value> {
            pairs.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
        };
        let keys: BTreeSet<&String> = self.metrics.iter().map(|(key, ..)| key).collect();
        let metrics: Vec<Value> = keys.iter().map(|key| json!({ "key": key, "value": 0 })).collect();
        let with_server = || format!("mlflow-artifacts:/{}/{}/artifacts", self.experiment, self.id);
        let artifact_uri = self.artifact_uri.clone().unwrap_or_else(with_server);
        json!({
            "info": {
                "run_id": self.id, "status": self.status, "start_time": self.start_time, "artifact_uri": artifact_uri,
            },
            "data": { "metrics": metrics, "params": pairs(&self.params), "tags": pairs(&self.tags) },
        })
    }
}

pub struct TestServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl TestServer {
    /// Serves until the process ends.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(State::default())));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                // A client that goes away is what some tests are about.
                std::thread::spawn(move || drop(serve(stream.unwrap(), &shared)));
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The runs that are not in the bin, by the harness's ids.
    pub fn active(&self) -> Vec<TestRun> {
        let mut runs: Vec<TestRun> = self.state().runs.iter().filter(|run| !run.is_deleted).cloned().collect();
        runs.sort_by(|one, other| one.tags.get("harness.run_id").cmp(&other.tags.get("harness.run_id")));
        runs
    }
}

fn serve(mut stream: TcpStream, shared: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut length, mut authorization) = (String::new(), 0, None);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_string()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let target = first.split(' ').nth(1).unwrap_or_default().to_string();
    shared.lock().unwrap().requests.push((target.clone(), authorization));
    while shared.lock().unwrap().is_silent {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut state = shared.lock().unwrap();
    if let Some(to) = &state.redirect {
        let head = format!(
            "HTTP/1.1 307 Elsewhere\r\nLocation: {to}{target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        return stream.write_all(head.as_bytes());
    }
    let (status, answer) = match (state.refusal, state.largest_body) {
        (Some(status), _) => (status, json!({ "error_code": "TEST", "message": "as the test wants" })),
        (None, Some(largest)) if length > largest => (413, json!(null)),
        (None, _) => answer(&mut state, &target, &body),
    };
    if state.lost_answers > 0 {
        state.lost_answers -= 1;
        return Ok(());
    }
    drop(state);
    let answer = answer.to_string();
    let head = format!("HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
    stream.write_all(format!("{head}{answer}").as_bytes())
}

fn answer(state: &mut State, target: &str, body: &[u8]) -> (u16, Value) {
    let url = reqwest::Url::parse(&format!("http://host{target}")).unwrap();
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let path = url.path().strip_prefix("/api/2.0/").unwrap_or_default().to_string();
    if let Some(path) = path.strip_prefix("mlflow-artifacts/artifacts/") {
        let parts: Vec<&str> = path.split('/').collect();
        let run = state.runs.iter_mut().find(|run| run.id == parts[1]).unwrap();
        assert_eq!((parts[0], parts[2]), (run.experiment.as_str(), "artifacts"));
        run.artefacts.insert(parts[3..].join("/"), body.to_vec());
        return (200, json!({}));
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_string();
    let missing = (404, json!({ "error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such thing" }));
    let run_id = if query.contains_key("run_id") { query["run_id"].clone() } else { text("run_id") };
    let place = state.runs.iter().position(|run| run.id == run_id);
    match path.as_str() {
        "mlflow/experiments/get-by-name" => {
            match state.experiments.iter().position(|name| *name == query["experiment_name"]) {
                Some(at) => (
                    200,
                    json!({ "experiment": { "experiment_id": (at + 1).to_string(), "lifecycle_stage": "active" } }),
                ),
                None => missing,
            }
        }
        "mlflow/experiments/create" => {
            state.experiments.push(text("name"));
            (200, json!({ "experiment_id": state.experiments.len().to_string() }))
        }
        "mlflow/runs/search" => {
            let filter = text("filter");
            let filter = filter.strip_prefix("tags.`").and_then(|rest| rest.strip_suffix('\'')).unwrap();
            let (tag, value) = filter.split_once("` = '").unwrap();
            let experiment = body["experiment_ids"][0].as_str().unwrap();
            let is_found = |run: &&TestRun| {
                !run.is_deleted && run.experiment == experiment && run.tags.get(tag).is_some_and(|there| there == value)
            };
            (200, json!({ "runs": state.runs.iter().filter(is_found).map(TestRun::json).collect::<Vec<_>>() }))
        }
        "mlflow/runs/create" => {
            let mut run = TestRun {
                id: format!("{:032x}", state.runs.len() + 1),
                experiment: text("experiment_id"),
                status: "RUNNING".into(),
                start_time: body["start_time"].as_u64().unwrap(),
                ..TestRun::default()
            };
            merge(&mut run.tags, &body["tags"]);
            state.runs.push(run.clone());
            (200, json!({ "run": run.json() }))
        }
        _ => {
            let Some(run) = place.map(|at| &mut state.runs[at]).filter(|run| !run.is_deleted) else { return missing };
            of_run(run, &path, &query, &body)
        }
    }
}

/// What concerns one run that is not in the bin.
fn of_run(run: &mut TestRun, path: &str, query: &BTreeMap<String, String>, body: &Value) -> (u16, Value) {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_string();
    match path {
        "mlflow/runs/update" => {
            run.status = text("status");
            run.end_time = body["end_time"].as_u64().unwrap_or(run.end_time);
        }
        "mlflow/runs/delete" => run.is_deleted = true,
        "mlflow/runs/set-tag" => drop(run.tags.insert(text("key"), text("value"))),
        "mlflow/runs/delete-tag" => drop(run.tags.remove(&text("key"))),
        "mlflow/runs/log-batch" => {
            let count = |name: &str| body[name].as_array().map_or(0, Vec::len);
            assert!(count("metrics") <= 1000 && count("params") <= 100 && count("tags") <= 100);
            let before = run.params.clone();
            merge(&mut run.params, &body["params"]);
            if before.iter().any(|(key, value)| run.params[key] != *value) {
                run.params = before;
                return (400, json!({ "error_code": "INVALID_PARAMETER_VALUE", "message": "params do not change" }));
            }
            merge(&mut run.tags, &body["tags"]);
            for metric in body["metrics"].as_array().into_iter().flatten() {
                let (key, step) = (metric["key"].as_str().unwrap(), metric["step"].as_u64().unwrap());
                assert!(key.len() <= 250 && !key.starts_with(".."), "{key}");
                run.metrics.insert((
                    key.to_string(),
                    step,
                    metric["value"].to_string(),
                    metric["timestamp"].as_u64().unwrap(),
                ));
            }
        }
        "mlflow/metrics/get-history" => {
            let of_key = run.metrics.iter().filter(|(key, ..)| *key == query["metric_key"]);
            let metrics = of_key.map(|(key, step, value, at)| {
                let value: Value = serde_json::from_str(value).unwrap();
                json!({ "key": key, "step": step, "value": value, "timestamp": at })
            });
            return (200, json!({ "metrics": metrics.collect::<Vec<_>>() }));
        }
        path => panic!("{path}"),
    }
    (200, json!({}))
}

fn merge(into: &mut BTreeMap<String, String>, pairs: &Value) {
    for pair in pairs.as_array().into_iter().flatten() {
        into.insert(pair["key"].as_str().unwrap().to_string(), pair["value"].as_str().unwrap().to_string());
    }
}
