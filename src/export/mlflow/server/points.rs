//! Numbers at steps: of each run only those are sent that are not there.

use super::super::on_server::{OnServer, is_same, metric, number, text};
use super::super::rest::Failure;
use super::super::{Content, Value};
use super::{METRICS_AT_ONCE, PAGE, Server};
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashSet};

impl Server {
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
    pub(super) fn agrees(&self, there: &mut OnServer, content: &Content) -> Result<bool, Failure> {
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
}
