//! One side of a comparison: the stored runs of one configuration, one per seed.

use crate::error::{Error, Result};
use crate::store::record::{Record, Status};
use crate::store::{Query, Stored};
use std::collections::{BTreeMap, BTreeSet};

/// Finished runs that differ in nothing but their seed.
#[derive(Clone, Debug)]
pub struct Side {
    /// What selected them, as given.
    pub query: String,
    pub runs: BTreeMap<u64, Stored>,
    /// Ids of selected runs that failed, and are left out.
    pub failed: Vec<String>,
}

impl Side {
    /// The runs of `stored` that `query` selects: a filter or the beginning of run ids ([`Query`]). A run that several
    /// experiments hold counts once.
    ///
    /// Errors: a filter that cannot be parsed; nothing selected, or nothing finished; several configurations.
    pub fn select(query: &str, stored: &[Stored]) -> Result<Self> {
        let mut seen = BTreeSet::new();
        let selected: Vec<Stored> = Query::parse(query)?
            .select(stored.to_vec())?
            .into_iter()
            .filter(|run| seen.insert(run.record.run_id.clone()))
            .collect();
        let (done, failed): (Vec<Stored>, Vec<Stored>) =
            selected.into_iter().partition(|run| run.record.status == Status::Done);
        let failed: Vec<String> = failed.into_iter().map(|run| run.record.run_id).collect();
        if done.is_empty() {
            let why = format!("{query:?} selects failed runs alone ({}): there is nothing to compare", ids(&failed));
            return Err(Error::NothingMatched(why));
        }
        refuse_several(query, &done)?;
        Ok(Self {
            query: query.to_string(),
            runs: done.into_iter().map(|run| (run.record.cell.seed, run)).collect(),
            failed,
        })
    }

    /// The record of any run: all have the same configuration.
    pub fn record(&self) -> Option<&Record> {
        self.runs.values().next().map(|run| &run.record)
    }

    /// Architecture, data, bits, method, as a title.
    pub fn title(&self) -> String {
        let Some(record) = self.record() else { return self.query.clone() };
        let cell = &record.cell;
        let variant = cell.variant.as_ref().map_or(String::new(), |variant| format!(" ({variant})"));
        format!("{} {} {}{variant}", cell.arch, cell.bits, cell.method)
    }
}

/// What determines a run's result, but for its seed and the calibration images that it draws.
fn configuration(record: &Record) -> BTreeMap<String, String> {
    let mut fields = record.cell.fields();
    fields.remove("seed");
    fields.remove("variant");
    if let Some(weights) = fields.get_mut("weights") {
        weights.truncate(weights.find(':').unwrap_or(weights.len()));
    }
    fields.insert("revision".to_string(), record.method_revision.to_string());
    let raised = record.made_with();
    fields.extend(raised.raised().map(|(name, revision)| (format!("revision of {name}"), revision.to_string())));
    fields.insert("SHA-256 of weights".to_string(), format!("{:.10}", record.hashes.weights));
    fields.insert("SHA-256 of test images".to_string(), format!("{:.10}", record.hashes.test));
    fields
}

/// Keys in which the configurations of `records` differ, each with its value in every one of them.
pub fn differences<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<(String, Vec<String>)> {
    let all: Vec<BTreeMap<String, String>> = records.map(configuration).collect();
    let keys: BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    let value = |fields: &BTreeMap<String, String>, key| fields.get(key).map_or("(none)", String::as_str).to_string();
    let values = keys.into_iter().map(|key| (key.clone(), all.iter().map(|fields| value(fields, key)).collect()));
    values.filter(|(_, values): &(_, Vec<String>)| values.windows(2).any(|pair| pair[0] != pair[1])).collect()
}

fn refuse_several(query: &str, done: &[Stored]) -> Result<()> {
    let differs = differences(done.iter().map(|run| &run.record));
    let found: Vec<String> = done.iter().map(|run| run.record.run_id.clone()).collect();
    if let Some((key, values)) = differs.first() {
        let listed = |values: &[String]| {
            let distinct: BTreeSet<&str> = values.iter().map(String::as_str).collect();
            distinct.into_iter().collect::<Vec<_>>().join(" | ")
        };
        let all: Vec<String> =
            differs.iter().take(4).map(|(key, values)| format!("{key} = {}", listed(values))).collect();
        let example = format!("& {key}({})", values.first().map_or("...", String::as_str));
        return Err(Error::Usage(format!(
            "{query:?} selects {} runs of several configurations ({}), which differ in {}{}; narrow it to one, for example \
             with {example}, or name a run",
            done.len(),
            ids(&found),
            all.join(", "),
            if differs.len() > all.len() { ", ..." } else { "" },
        )));
    }
    let mut seeds = BTreeMap::new();
    for run in done {
        if let Some(first) = seeds.insert(run.record.cell.seed, &run.record.run_id) {
            return Err(Error::Usage(format!(
                "{query:?} selects two runs of seed {} with the same configuration: {first} and {}; they drew different \
                 calibration images: name one of them",
                run.record.cell.seed, run.record.run_id
            )));
        }
    }
    Ok(())
}

/// The first few ids.
fn ids(ids: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = ids.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if ids.len() > SHOWN { format!("{shown} and {} more", ids.len() - SHOWN) } else { shown }
}
