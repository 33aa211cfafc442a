//! `runs.json`: the runs that a filter selects, or that are named, as the page that compares runs gets them.
//!
//! A thousand runs have few different values of each key. So they come as columns, each value once, with the index of
//! its value for each run: a tenth of what one object for each run would take.

use super::json::json;
use super::named::named;
use super::site::{Runs, Site};
use crate::error::{Error, Result};
use crate::experiment::Filter;
use crate::experiment::facts::{FACTS, Fact};
use crate::experiment::filter::Subject;
use crate::store::Stored;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Columns of what filters know of a run, and what is no part of its configuration.
const LISTED: [&str; 5] = ["experiment", "started", "tag", "note", "grid"];

#[derive(Serialize)]
struct Compared<'a> {
    /// How many runs are stored in all.
    stored: usize,
    /// Why there are no runs, where there are none.
    why_none: Option<String>,
    /// Which of the named runs are not stored.
    missing: &'a [&'a str],
    runs: Vec<Run<'a>>,
    facts: Vec<FactColumn>,
    texts: Vec<TextColumn>,
}

#[derive(Serialize)]
struct Run<'a> {
    experiment: &'a str,
    id: &'a str,
    status: &'static str,
    error: Option<&'a str>,
}

/// A number of each run, in the unit in which it is shown.
#[derive(Serialize)]
struct FactColumn {
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    values: Vec<Option<f64>>,
}

/// A text of each run.
#[derive(Debug, PartialEq, Serialize)]
struct TextColumn {
    key: String,
    /// Whether runs that differ in it are configured differently.
    is_configuration: bool,
    values: Vec<String>,
    /// Which of the values each run has; null where it has none.
    of: Vec<Option<usize>>,
}

/// A run with its [`Stored::configuration`].
struct Entry<'a> {
    run: &'a Stored,
    configuration: &'a [(String, String)],
}

impl<'a> Entry<'a> {
    fn of(runs: &'a Runs, index: usize) -> Self {
        Self { run: &runs.stored[index], configuration: &runs.configurations()[index] }
    }
}

impl Subject for Entry<'_> {
    const CALLED: &'static str = Stored::CALLED;

    fn knows(name: &str) -> bool {
        Stored::knows(name)
    }

    fn values(&self, name: &str) -> Option<Vec<String>> {
        self.run.values(name)
    }
}

/// The runs of all experiments that `filter` selects; a blank one selects all.
///
/// Errors: the filter cannot be read ([`Error::Grid`]).
pub fn filtered(site: &Site, filter: &str) -> Result<Vec<u8>> {
    let filter = (!filter.trim().is_empty()).then(|| Filter::parse(filter)).transpose()?;
    let all = site.all_runs()?;
    let entries: Vec<Entry> =
        all.iter().flat_map(|runs| (0..runs.stored.len()).map(|index| Entry::of(runs, index))).collect();
    let stored = entries.len();
    if stored == 0 {
        return compared(&[], stored, Some("no runs are stored yet; `harness run GRID` stores some".to_string()), &[]);
    }
    let selected = match filter {
        Some(filter) => filter.select(entries),
        None => Ok(entries),
    };
    match selected {
        Ok(entries) => compared(&entries, stored, None, &[]),
        Err(Error::NothingMatched(why)) => compared(&[], stored, Some(why), &[]),
        Err(error) => Err(error),
    }
}

/// The runs called `names`. Errors: too many.
pub fn chosen(site: &Site, names: &[&str]) -> Result<Vec<u8>> {
    let (found, missing) = named(site, names)?;
    let entries: Vec<Entry> = found.iter().map(|named| Entry::of(&named.runs, named.index)).collect();
    compared(&entries, entries.len(), None, &missing)
}

fn compared(entries: &[Entry], stored: usize, why_none: Option<String>, missing: &[&str]) -> Result<Vec<u8>> {
    let runs = entries.iter().map(|Entry { run, .. }| Run {
        experiment: &run.experiment,
        id: &run.record.run_id,
        status: run.status(),
        error: run.record.error.as_deref(),
    });
    let compared =
        Compared { stored, why_none, missing, runs: runs.collect(), facts: facts(entries), texts: texts(entries) };
    json("the runs", &compared)
}

fn facts(entries: &[Entry]) -> Vec<FactColumn> {
    let column = |fact: &'static Fact| FactColumn {
        key: fact.name,
        title: fact.title,
        unit: fact.unit.symbol(),
        values: entries.iter().map(|entry| Some(fact.unit.scale() * entry.run.record.fact(fact)?)).collect(),
    };
    FACTS.iter().map(column).collect()
}

fn texts(entries: &[Entry]) -> Vec<TextColumn> {
    let listed = |name: &str, entry: &Entry| entry.run.values(name).filter(|values| !values.is_empty());
    let listed = LISTED.iter().map(|name| {
        let texts: Vec<Option<String>> = entries.iter().map(|entry| Some(listed(name, entry)?.join(", "))).collect();
        TextColumn::new(name, false, texts.iter().map(Option::as_deref))
    });
    let mut configuration: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        for (key, text) in entry.configuration {
            configuration.entry(key).or_insert_with(|| vec![None; entries.len()])[index] = Some(text);
        }
    }
    let configuration = configuration.into_iter().map(|(key, texts)| TextColumn::new(key, true, texts.into_iter()));
    listed.chain(configuration).collect()
}

impl TextColumn {
    fn new<'a>(key: &str, is_configuration: bool, texts: impl Iterator<Item = Option<&'a str>>) -> Self {
        let (mut values, mut known) = (Vec::new(), HashMap::new());
        let mut index_of = |text: &'a str| {
            *known.entry(text).or_insert_with(|| {
                values.push(text.to_string());
                values.len() - 1
            })
        };
        let of = texts.map(|text| text.map(&mut index_of)).collect();
        Self { key: key.to_string(), is_configuration, values, of }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Annotations;
    use crate::store::record::Record;
    use std::path::PathBuf;

    #[test]
    fn a_column_has_each_value_once() {
        let column = TextColumn::new("bits", true, [Some("W2A2"), None, Some("W4A4"), Some("W2A2")].into_iter());
        assert_eq!(
            (column.values, column.of),
            (vec!["W2A2".into(), "W4A4".into()], vec![Some(0), None, Some(1), Some(0)])
        );
    }

    #[test]
    fn a_thousand_runs_take_little() {
        let runs = (0..1000).map(|seed| Stored {
            experiment: "<i>x".into(),
            folder: PathBuf::new(),
            record: Record::sample(&format!("run-{seed}"), "qdrop", "W2A2", seed),
            annotations: Annotations::default(),
        });
        let runs = Runs::new(runs.collect(), Vec::new());
        let entries: Vec<Entry> = (0..1000).map(|index| Entry::of(&runs, index)).collect();
        let json = compared(&entries, 1000, None, &[]).unwrap();
        assert!(json.len() < 600_000, "{} bytes", json.len());
        let answer: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let column = |list: &str, key: &str| {
            answer[list].as_array().unwrap().iter().find(|column| column["key"] == key).unwrap().clone()
        };
        assert_eq!(column("texts", "experiment")["values"].to_string(), "[\"<i>x\"]");
        assert_eq!(column("texts", "tag")["of"][999], serde_json::Value::Null);
        assert_eq!(
            (&column("texts", "seed")["of"][999], column("texts", "seed")["values"][999].as_str()),
            (&999.into(), Some("999"))
        );
        assert_eq!(column("texts", "recipe.drop-input")["is_configuration"], true);
        let test = column("facts", "test");
        assert_eq!((&test["unit"], &test["values"][999]), (&"%".into(), &80.0.into()));
    }
}
