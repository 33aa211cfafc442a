//! Naming stored runs on the command line: a filter, or the beginning of an id.

use super::collection::{Stored, scan_all};
use crate::error::{Error, Result};
use crate::experiment::Filter;
use std::path::Path;

/// What selects stored runs.
#[derive(Clone, Debug)]
pub enum Query {
    /// Anything with other characters than an id has.
    Filter(Filter),
    /// `resnet20-w2a2-qdrop-s0`, or `drop/resnet20-w2a2-qdrop-s0` for runs of one experiment.
    Prefix { experiment: Option<String>, run: String },
}

impl Query {
    /// Errors: a filter that cannot be parsed.
    pub fn parse(text: &str) -> Result<Self> {
        let is_of_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if text.is_empty() || !text.chars().all(is_of_id) {
            return Ok(Query::Filter(Filter::parse(text)?));
        }
        let (experiment, run) = text.rsplit_once('/').map_or((None, text), |(name, run)| (Some(name.to_string()), run));
        Ok(Query::Prefix { experiment, run: run.to_string() })
    }

    /// The runs that the filter selects, or whose ids begin so; a run whose id is the whole text stands alone.
    ///
    /// Errors: nothing matched.
    pub fn select(&self, stored: Vec<Stored>) -> Result<Vec<Stored>> {
        let (experiment, prefix) = match self {
            Query::Filter(filter) => return filter.select(stored),
            Query::Prefix { experiment, run } => (experiment.as_ref(), run.as_str()),
        };
        let is_within = |run: &Stored| experiment.is_none_or(|name| *name == run.experiment);
        let mut found: Vec<Stored> =
            stored.into_iter().filter(|run| is_within(run) && run.record.run_id.starts_with(prefix)).collect();
        if found.iter().any(|run| run.record.run_id == prefix) {
            found.retain(|run| run.record.run_id == prefix);
        }
        if found.is_empty() {
            let within = experiment.map_or(String::new(), |name| format!(" of experiment {name}"));
            return Err(Error::NothingMatched(format!(
                "no stored run{within} begins with {prefix:?}; `harness list` lists them (a filter has parentheses: \
                 method(qdrop) & bits(w2a2))"
            )));
        }
        Ok(found)
    }
}

/// The one run under `results` that `text` names. Errors: none; several.
pub fn select_one(results: &Path, text: &str) -> Result<Stored> {
    let query = Query::parse(text)?;
    let collection = scan_all(results)?;
    // What was asked for may be among those that cannot be read.
    let broken = collection.broken.iter().find(|(path, _)| path.file_name().is_some_and(|name| *name == *text));
    if let Some((path, problem)) = broken {
        return Err(Error::content(path, problem.clone()));
    }
    let mut found = query.select(collection.runs)?;
    match found.len() {
        1 => Ok(found.remove(0)),
        count => {
            const SHOWN: usize = 8;
            let names = |run: &Stored| format!("{}/{}", run.experiment, run.record.run_id);
            let shown: Vec<String> = found.iter().take(SHOWN).map(names).collect();
            let more = if count > SHOWN { format!(" and {} more", count - SHOWN) } else { String::new() };
            Err(Error::Usage(format!("{text:?} names {count} runs, give one: {}{more}", shown.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::Record;
    use crate::store::{Artefacts, Store};

    fn record(seed: u64) -> Record {
        Record::sample("", "qdrop", "W2A4", seed).storable()
    }

    fn results() -> tempfile::TempDir {
        let results = tempfile::tempdir().unwrap();
        for (experiment, seed) in [("a", 1), ("a", 12), ("b", 2), ("b", 12)] {
            let store = Store::new(results.path(), experiment);
            let _lock = store.lock().unwrap();
            store.write_run(&record(seed), "", &Artefacts::default()).unwrap();
        }
        results
    }

    #[test]
    fn one_run_is_found_by_a_beginning_that_no_other_has() {
        let results = results();
        let one = |text: &str| {
            let found = select_one(results.path(), text);
            found.map(|run| format!("{}/{}", run.experiment, run.record.run_id)).map_err(|error| error.to_string())
        };
        let [first, second, twelfth] = [1, 2, 12].map(|seed| record(seed).run_id);
        assert_eq!(one("resnet20-w2a4-qdrop-s2").unwrap(), format!("b/{second}"));
        assert_eq!(one(&first).unwrap(), format!("a/{first}"));
        assert_eq!(one("b/resnet20-w2a4-qdrop-s1").unwrap(), format!("b/{twelfth}"));
        assert_eq!(one("run(*-s2-*)").unwrap(), format!("b/{second}"));
        let all = format!("4 runs, give one: a/{first}, a/{twelfth}, b/{twelfth}, b/{second}");
        assert!(one("resnet").unwrap_err().contains(&all), "{}", one("resnet").unwrap_err());
        assert!(one(&twelfth).unwrap_err().contains(&format!("2 runs, give one: a/{twelfth}, b/{twelfth}")));
        assert!(one("x").unwrap_err().contains("no stored run begins with \"x\""));
        assert!(one("c/cell").unwrap_err().contains("no stored run of experiment c begins"));
        assert!(one("run(x)").unwrap_err().contains("matches none of 4 stored runs"));
    }

    #[test]
    fn a_damaged_run_asked_for_by_name_is_no_missing_one() {
        let results = results();
        let id = record(2).run_id;
        std::fs::write(results.path().join("b/runs").join(&id).join("record.json"), "{").unwrap();
        let error = select_one(results.path(), &id).unwrap_err().to_string();
        assert!(error.contains(&id) && error.contains("not a complete record"), "{error}");
    }
}
