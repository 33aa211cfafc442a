//! What is to be done: cells against stored runs.

use super::record::{Record, Status};
use crate::error::Result;
use crate::experiment::{Cell, Hashes, Revisions, RunId, identity};
use std::collections::{BTreeSet, HashMap};

/// A cell with its identity and what is known of it.
#[derive(Clone, Debug)]
pub struct Planned {
    pub id: RunId,
    pub cell: Cell,
    /// Of weights and data; `None` where these were not looked at and no run is stored, so that its id has no hash either.
    pub hashes: Option<Hashes>,
    pub revisions: Revisions,
    pub state: State,
}

/// What is stored of a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Done,
    /// It ran and failed, with this error.
    Failed(String),
    /// Not run; `differs` from a stored run of the same slug in these points: name, stored, now.
    Stale {
        stored: String,
        differs: Vec<(String, String, String)>,
    },
    /// Not run, and nothing like it.
    Missing,
}

impl State {
    /// As `harness plan` prints it.
    pub fn name(&self) -> &'static str {
        match self {
            State::Done => "done",
            State::Failed(_) => "failed",
            State::Stale { .. } => "stale",
            State::Missing => "pending",
        }
    }
}

/// Compares `cells` with `stored` runs; `hashes` gives what identifies a cell's inputs.
///
/// Where it gives `None`, the inputs count as those of the cell's stored run, the newest of several.
pub fn plan(
    cells: Vec<Cell>,
    stored: &[Record],
    mut hashes: impl FnMut(&Cell) -> Result<Option<Hashes>>,
) -> Result<Vec<Planned>> {
    let mut of_slug: HashMap<String, Vec<&Record>> = HashMap::new();
    for record in stored {
        of_slug.entry(record.cell.slug()).or_default().push(record);
    }
    let planned = cells.into_iter().map(|cell| {
        let revisions = Revisions::of(&cell);
        if let Some(hashes) = hashes(&cell)? {
            let id = RunId::new(&cell, &hashes, &revisions);
            return Ok(Planned { id, cell, hashes: Some(hashes), revisions, state: State::Missing });
        }
        let is_own = |record: &&&Record| {
            let hashes = &record.hashes;
            identity(&cell, hashes, &revisions) == identity(&record.cell, hashes, &record.made_with())
        };
        let own = of_slug.get(&cell.slug()).into_iter().flatten().filter(is_own);
        let newest = own.max_by_key(|record| record.provenance.started_unix_s);
        let id = RunId::given(newest.map_or_else(|| cell.slug(), |record| record.run_id.clone()));
        let hashes = newest.map(|record| record.hashes.clone());
        Ok(Planned { id, cell, hashes, revisions, state: State::Missing })
    });
    let mut planned = planned.collect::<Result<Vec<_>>>()?;
    // A stored run that is up to date for one cell is no outdated run of another.
    let current: BTreeSet<String> = planned.iter().map(|planned| planned.id.to_string()).collect();
    let (current, old): (Vec<&Record>, Vec<&Record>) =
        stored.iter().partition(|record| current.contains(&record.run_id));
    let current: HashMap<&str, &Record> = current.into_iter().map(|record| (record.run_id.as_str(), record)).collect();
    let mut outdated: HashMap<String, Vec<&Record>> = HashMap::new();
    for record in old {
        outdated.entry(record.cell.slug()).or_default().push(record);
    }
    for planned in &mut planned {
        planned.state = state(planned, &current, &outdated);
    }
    Ok(planned)
}

/// `current` by run id, `outdated` by slug.
fn state(planned: &Planned, current: &HashMap<&str, &Record>, outdated: &HashMap<String, Vec<&Record>>) -> State {
    let Planned { id, cell, hashes, revisions, .. } = planned;
    let name = id.to_string();
    if let Some(record) = current.get(name.as_str()) {
        return match record.status {
            Status::Done => State::Done,
            Status::Failed => State::Failed(record.error.clone().unwrap_or_default()),
        };
    }
    // What is not known does not differ.
    let now = |record: &Record| identity(cell, hashes.as_ref().unwrap_or(&record.hashes), revisions);
    let nearest = outdated
        .get(&cell.slug())
        .into_iter()
        .flatten()
        .map(|record| {
            let then = identity(&record.cell, &record.hashes, &record.made_with());
            (*record, differences(&then, &now(record)))
        })
        .min_by_key(|(_, differs)| differs.len());
    match nearest {
        Some((record, differs)) => State::Stale { stored: record.run_id.clone(), differs },
        None => State::Missing,
    }
}

/// Name, old and new value of every part that differs.
fn differences(old: &[(String, String)], new: &[(String, String)]) -> Vec<(String, String, String)> {
    let value = |parts: &[(String, String)], name: &str| {
        // A revision that does not identify a run is the first.
        let absent = if name.starts_with("revision of ") { "1" } else { "(none)" };
        parts.iter().find(|(part, _)| part == name).map_or(absent.to_string(), |(_, value)| value.clone())
    };
    let mut names: Vec<&String> = new.iter().chain(old).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let pairs = names.into_iter().map(|name| (name.clone(), value(old, name), value(new, name)));
    pairs.filter(|(_, old, new)| old != new).collect()
}
