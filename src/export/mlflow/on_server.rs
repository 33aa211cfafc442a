//! A run as MLflow's server has it, and the numbers and texts of its answers.

use super::rest::Failure;
use super::{DIGEST, Value};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// Values that differ by less were rounded by a database.
const ROUNDING: f64 = 1e-12;

/// A run on the server.
#[derive(Default)]
pub struct OnServer {
    pub(super) id: String,
    pub(super) artifact_uri: String,
    pub(super) is_running: bool,
    /// Milliseconds since 1970.
    pub(super) start_ms: u64,
    pub(super) params: BTreeMap<String, String>,
    pub(super) tags: BTreeMap<String, String>,
    /// Numbers that are there, by key and step.
    pub(super) held: BTreeMap<String, BTreeMap<usize, f64>>,
    /// Keys of numbers of which some are there that were not asked for yet.
    pub(super) unread: BTreeSet<String>,
}

impl OnServer {
    /// From an answer. Errors: it is no run.
    pub(super) fn of(run: &Json) -> Result<Self, Failure> {
        let pairs = |pointer: &str| {
            let pairs = run.pointer(pointer).and_then(Json::as_array).into_iter().flatten();
            pairs.map(|pair| (text(pair, "/key"), text(pair, "/value"))).collect::<BTreeMap<_, _>>()
        };
        let id = text(run, "/info/run_id");
        if id.is_empty() {
            return Err(Failure::Malformed("it gives no id of a run".to_string()));
        }
        Ok(Self {
            id,
            artifact_uri: text(run, "/info/artifact_uri"),
            start_ms: run.pointer("/info/start_time").map_or(0.0, number) as u64,
            is_running: text(run, "/info/status") == "RUNNING",
            params: pairs("/data/params"),
            tags: pairs("/data/tags"),
            held: BTreeMap::new(),
            unread: pairs("/data/metrics").into_keys().collect(),
        })
    }

    /// Whether not all of it is there.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.tags.contains_key(DIGEST)
    }

    /// Whether it can have these parameters: they cannot be changed.
    pub(super) fn agrees_in(&self, params: &[(String, String)]) -> bool {
        params.iter().all(|(key, value)| self.params.get(key).is_none_or(|there| there == value))
    }
}

/// JSON has no NaN and no infinity: the server reads their names.
pub(super) fn metric(key: &str, Value { value, at_ms, step }: &Value) -> Json {
    let value = match value {
        value if value.is_finite() => json!(value),
        value if value.is_nan() => json!("NaN"),
        value if *value > 0.0 => json!("Infinity"),
        _ => json!("-Infinity"),
    };
    json!({ "key": key, "value": value, "timestamp": at_ms, "step": step })
}

pub(super) fn pair((key, value): (&String, &String)) -> Json {
    json!({ "key": key, "value": value })
}

/// The text that an answer has there, or nothing.
pub(super) fn text(answer: &Json, pointer: &str) -> String {
    answer.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_string()
}

/// A number as the server writes it, which may be a text.
pub(super) fn number(json: &Json) -> f64 {
    json.as_f64().or_else(|| json.as_str()?.parse().ok()).unwrap_or(0.0)
}

/// Databases have no infinity: MLflow keeps the largest number for it.
pub(super) fn is_same(one: f64, other: f64) -> bool {
    let kept = |value: f64| value.clamp(f64::MIN, f64::MAX);
    let (one, other) = (kept(one), kept(other));
    (one.is_nan() && other.is_nan()) || one == other || (one - other).abs() <= ROUNDING * one.abs().max(other.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_has_not_come_back() {
        for (value, there) in
            [(0.1, json!(0.1)), (f64::NAN, json!("NaN")), (f64::INFINITY, json!(1.7976931348623157e308))]
        {
            let sent = metric("x", &Value { value, at_ms: 1, step: 2 });
            assert!(is_same(number(&sent["value"]), value) && is_same(number(&there), value), "{value}");
        }
        assert!(!is_same(f64::NAN, 0.0) && !is_same(0.1, 0.1 + 1e-9) && !is_same(f64::INFINITY, 1.0));
    }
}
