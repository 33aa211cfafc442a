//! What Trackio is told of a run: a row of `configs`, one of `metrics` for each call of `trackio.log` that would have logged it, and an
//! alert where it failed.

use super::super::series::{end_s, phases, singles};
use super::super::{Exported, said, sha_of_name};
use crate::disk::sha256;
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime};

/// The key of the configuration that tells what a run was exported from.
pub(super) const DIGEST: &str = "harness.export_sha256";
/// The last second of a year of four digits.
const LAST_S: f64 = 253_402_300_799.0;

/// Numbers that were logged at once.
pub(super) struct Logged {
    pub timestamp: String,
    pub step: i64,
    /// JSON, by key.
    pub metrics: String,
}

/// A run as the rows of Trackio's tables.
pub(super) struct Rows {
    pub id: String,
    pub name: String,
    pub created_at: String,
    /// JSON, [`DIGEST`] among it.
    pub config: String,
    pub digest: String,
    pub logged: Vec<Logged>,
    /// When the run failed, and why.
    pub alert: Option<(String, String)>,
}

impl Rows {
    pub fn of(run: &Exported) -> Self {
        let record = &run.stored.record;
        let created_at = timestamp(record.provenance.started_unix_s as f64);
        let ended_at = timestamp(end_s(record));
        let mut logged = Vec::new();
        for phase in phases(run) {
            for (index, (step, time_s)) in phase.steps.iter().zip(&phase.times_s).enumerate() {
                let values = phase.values.iter().map(|(key, values)| (key.clone(), number(values[index])));
                logged.push(Logged {
                    timestamp: timestamp(*time_s),
                    step: i64::try_from(*step).unwrap_or(i64::MAX),
                    metrics: Value::Object(values.collect()).to_string(),
                });
            }
        }
        // Trackio knows a run by its metrics: one that failed at once has this row, too.
        let last = singles(record)
            .into_iter()
            .map(|single| (format!("{}/{}", single.group, single.name), number(single.value)));
        logged.push(Logged {
            timestamp: ended_at.clone(),
            step: 0,
            metrics: Value::Object(last.collect()).to_string(),
        });
        let mut config = config(run, &created_at);
        let mut rows = Self {
            id: sha_of_name(&run.stored.experiment, &record.run_id),
            name: record.run_id.clone(),
            created_at,
            config: Value::Object(config.clone()).to_string(),
            digest: String::new(),
            logged,
            alert: record.error.clone().map(|error| (ended_at, error)),
        };
        rows.digest = rows.hash();
        config.insert(DIGEST.to_string(), json!(rows.digest));
        rows.config = Value::Object(config).to_string();
        rows
    }

    /// What two computers that exchange rows know the row `index` by.
    pub fn row_id(&self, index: usize) -> String {
        sha256(&[format!("{}\n{}\n{index}", self.id, self.digest).as_bytes()])[..32].to_string()
    }

    fn hash(&self) -> String {
        let lines = self.logged.iter().map(|row| format!("{} {} {}\n", row.timestamp, row.step, row.metrics));
        sha256(&[self.config.as_bytes(), lines.collect::<String>().as_bytes()])
    }
}

/// The cell by its dotted keys, what else is known of the run, and what Trackio itself says of each.
fn config(run: &Exported, created_at: &str) -> Map<String, Value> {
    let record = &run.stored.record;
    let mut config = Map::new();
    // The cell can always be written as JSON.
    flatten("", serde_json::to_value(&record.cell).unwrap_or_default(), &mut config);
    config.extend(said(run).into_iter().map(|(key, value)| (key.to_string(), json!(value))));
    config.extend(
        [("_Created", json!(created_at)), ("_Group", json!(run.stored.experiment)), ("_Username", Value::Null)]
            .map(|(key, value)| (key.to_string(), value)),
    );
    config
}

fn flatten(prefix: &str, value: Value, into: &mut Map<String, Value>) {
    let Value::Object(fields) = value else {
        into.insert(prefix.to_string(), value);
        return;
    };
    for (key, value) in fields {
        flatten(&if prefix.is_empty() { key } else { format!("{prefix}.{key}") }, value, into);
    }
}

/// JSON has no NaN and no infinity: Trackio reads their names.
fn number(value: f64) -> Value {
    match value {
        value if value.is_finite() => json!(value),
        value if value.is_nan() => json!("NaN"),
        value if value > 0.0 => json!("Infinity"),
        _ => json!("-Infinity"),
    }
}

/// Seconds since 1970 as Python's `datetime.isoformat()` writes them, so that they sort among Trackio's own.
fn timestamp(unix_s: f64) -> String {
    let since_1970 = Duration::from_secs_f64(unix_s.clamp(0.0, LAST_S));
    let text = humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + since_1970).to_string();
    text.trim_end_matches('Z').to_string() + "+00:00"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_written_as_trackio_does() {
        let numbers = [0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|value| number(value).to_string());
        assert_eq!(numbers, ["0.5", "\"NaN\"", "\"Infinity\"", "\"-Infinity\""]);
        assert_eq!(timestamp(1.25), "1970-01-01T00:00:01.250000+00:00");
        assert_eq!(timestamp(f64::INFINITY), "9999-12-31T23:59:59.000000+00:00");
        assert_eq!(timestamp(f64::NAN.max(-1.0)), "1970-01-01T00:00:00.000000+00:00");
    }
}
