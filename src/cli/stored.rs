//! Stored runs as verbs get them: what is skipped is named on standard error.

use crate::error::Result;
use crate::store::{Collection, Query, Stored, scan_all, select_one};
use std::path::{Path, PathBuf};

/// Every run under `results`.
pub(super) fn all(results: &Path) -> Result<Collection> {
    let collection = scan_all(results)?;
    warn_of_broken(&collection.broken);
    Ok(collection)
}

/// The run whose id begins with `query`, or all that it selects as a filter. Errors: none; several begin so.
pub(super) fn queried(results: &Path, query: &str) -> Result<Vec<Stored>> {
    match Query::parse(query)? {
        Query::Prefix { .. } => Ok(vec![select_one(results, query)?]),
        filter => filter.select(all(results)?.runs),
    }
}

/// Names folders without a readable record, or with one that cannot be true.
pub(super) fn warn_of_broken(broken: &[(PathBuf, String)]) {
    for (path, why) in broken {
        tell!("warning: skipping {}: {why}", path.display());
    }
}
