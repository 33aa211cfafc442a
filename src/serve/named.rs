//! Runs that a URL names as `EXPERIMENT/RUN`: looked up among what is stored.

use super::site::{Runs, Site};
use crate::error::{Error, Result};
use crate::store::Stored;
use std::sync::Arc;

/// Runs that are named at once; more lines in a figure nobody tells apart.
pub const MOST_NAMED: usize = 20;

/// A stored run as it was named.
pub struct Named<'a> {
    pub name: &'a str,
    pub runs: Arc<Runs>,
    /// Which of `runs` it is.
    pub index: usize,
}

impl Named<'_> {
    pub fn run(&self) -> &Stored {
        &self.runs.stored[self.index]
    }
}

/// The stored ones of `names`, in their order, and those that are not stored. Errors: more than [`MOST_NAMED`].
pub fn named<'a>(site: &Site, names: &[&'a str]) -> Result<(Vec<Named<'a>>, Vec<&'a str>)> {
    if names.len() > MOST_NAMED {
        let count = names.len();
        return Err(Error::Usage(format!("{count} runs are named, and {MOST_NAMED} are compared at most; name fewer")));
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match find(site, name)? {
            Some(run) => found.push(run),
            None => missing.push(*name),
        }
    }
    Ok((found, missing))
}

fn find<'a>(site: &Site, name: &'a str) -> Result<Option<Named<'a>>> {
    let Some((experiment, id)) = name.split_once('/') else { return Ok(None) };
    let Some(runs) = site.runs_of(experiment)? else { return Ok(None) };
    let index = runs.stored.iter().position(|run| run.record.run_id == id);
    Ok(index.map(|index| Named { name, runs, index }))
}
