//! Which files are the shards of a split, and whether they are all of them.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Beginnings of the names of a split's shards, the preferred first: `test` has no labels where there is a `validation`.
pub(super) const POOL: [&str; 1] = ["train"];
pub(super) const TEST: [&str; 3] = ["validation", "val", "test"];

/// The files `<name>-*.parquet`, `<name>.parquet` or `<name>/*.parquet`, sorted, of the first name that has any.
pub(super) fn shard_paths(folder: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    for folder in [folder, &folder.join("data")] {
        for name in names {
            let mut paths = parquet_files(folder, |file| {
                file == format!("{name}.parquet") || file.starts_with(&format!("{name}-"))
            })?;
            paths.extend(parquet_files(&folder.join(name), |file| !file.starts_with('.'))?);
            paths.sort_unstable();
            if !paths.is_empty() {
                return Ok(paths);
            }
        }
    }
    let wanted: Vec<String> = names.iter().map(|name| format!("{name}-*.parquet")).collect();
    Err(Error::content(folder, format!("it holds no {}", wanted.join(" or "))))
}

/// The Parquet files in `folder` with such a name; none if there is no folder.
fn parquet_files(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("cannot read", folder))?.path();
        let is_parquet = path.extension().is_some_and(|extension| extension == "parquet");
        if is_parquet && path.file_name().and_then(|name| name.to_str()).is_some_and(&is_wanted) {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Refuses what cannot be the shards of one split: a copy of a shard; where one is called `...-00000-of-00014`, any that is
/// called otherwise, of another number of shards, or of the same position; and, with `whole`, missing ones, since a part of a
/// test split is another test split.
pub(super) fn check_set<'p>(paths: &'p [PathBuf], whole: bool) -> Result<()> {
    let stem = |path: &'p PathBuf| path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let stems: Vec<(&PathBuf, &str)> = paths.iter().map(|path| (path, stem(path))).collect();
    for (path, name) in &stems {
        let is_original = |(other, original): &&(&PathBuf, &str)| {
            let added = name.strip_prefix(original);
            added.is_some_and(|added| added.starts_with([' ', '('])) && path.parent() == other.parent()
        };
        if let Some((original, _)) = stems.iter().find(is_original) {
            let problem = format!("its name is that of a copy of {}: remove one of them", original.display());
            return Err(Error::content(*path, problem));
        }
    }
    if !stems.iter().any(|(_, name)| is_numbered(name)) {
        return Ok(());
    }
    let mut known: BTreeMap<usize, &PathBuf> = BTreeMap::new();
    let mut of_all: Option<(usize, &PathBuf)> = None;
    for (path, name) in stems {
        let Some((index, count)) = number(name) else {
            let problem =
                "its name does not end in -INDEX-of-COUNT, as that of shards of one split: remove or rename it";
            return Err(Error::content(path, problem));
        };
        let (expected, first) = *of_all.get_or_insert((count, path));
        if count != expected {
            let problem = format!("it is of {count} shards, {} of {expected}: keep those of one set", first.display());
            return Err(Error::content(path, problem));
        }
        if index >= count {
            return Err(Error::content(path, format!("there is no shard {index} of {count}: they count from 0")));
        }
        if let Some(other) = known.insert(index, path) {
            return Err(Error::content(
                path,
                format!("it is the same shard as {}: remove one of them", other.display()),
            ));
        }
    }
    match of_all {
        Some((count, path)) if whole && known.len() != count => {
            let missing = (0..count).find(|index| !known.contains_key(index)).unwrap_or(count);
            let problem =
                format!("{} of {count} shards are there, {missing} is missing: fetch the others", known.len());
            Err(Error::content(path, problem))
        }
        _ => Ok(()),
    }
}

/// Position and number of shards that a name ends with.
fn number(stem: &str) -> Option<(usize, usize)> {
    let (before, count) = stem.rsplit_once("-of-")?;
    let (_, index) = before.rsplit_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    Some((digits(index)?, digits(count)?))
}

/// Whether a name says, at its end or not, which of how many shards it is.
fn is_numbered(stem: &str) -> bool {
    stem.split_once("-of-").is_some_and(|(before, after)| {
        before.ends_with(|last: char| last.is_ascii_digit()) && after.starts_with(|first: char| first.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], whole: bool) -> Result<(), String> {
        let paths: Vec<PathBuf> = names.iter().map(|name| PathBuf::from(format!("{name}.parquet"))).collect();
        check_set(&paths, whole).map_err(|error| error.to_string())
    }

    #[test]
    fn sets_are_complete_or_named_otherwise() {
        for names in [
            &["val-00000-of-00002", "val-00001-of-00002"][..],
            &["val-00000-of-00001"],
            &["validation"],
            &["val-0", "val-1", "val-10"],
            &["val-part-of-it"],
        ] {
            check(names, true).unwrap();
        }
        check(&["train-00001-of-00003"], false).unwrap();
    }

    #[test]
    fn what_is_no_shard_of_the_set_is_named() {
        for (names, problem) in [
            (&["v-00000-of-00002"][..], "v-00000-of-00002.parquet: 1 of 2 shards are there, 1 is missing"),
            (&["v-00000-of-00002", "v-00000-of-00002 (1)"], "v-00000-of-00002 (1).parquet: its name is that of a copy"),
            (&["v-00000-of-00002 (1)", "v-00001-of-00002"], "v-00000-of-00002 (1).parquet: its name does not end"),
            (&["v-00000-of-00001 (1)"], "v-00000-of-00001 (1).parquet: its name does not end"),
            (&["v-00000-of-00001", "v-extra"], "v-extra.parquet: its name does not end"),
            (&["v-00000-of-00002", "v-00001-of-00003"], "v-00001-of-00003.parquet: it is of 3 shards"),
            (&["v-0-of-2", "v-00000-of-00002"], "v-00000-of-00002.parquet: it is the same shard as v-0-of-2.parquet"),
            (&["v-00000-of-00002", "v-00002-of-00002"], "v-00002-of-00002.parquet: there is no shard 2 of 2"),
            (&["v-0", "v-0(1)"], "v-0(1).parquet: its name is that of a copy"),
        ] {
            let error = check(names, true).unwrap_err();
            assert!(error.starts_with(problem), "{names:?}: {error}");
        }
        // A sample may be drawn from a part of the shards, but not from one of them twice.
        assert!(check(&["v-0-of-3", "v-00-of-3"], false).unwrap_err().contains("the same shard"));
    }
}
