//! Which files are the shards of a split, and whether they are all of them.

use crate::error::{Error, Result};
use crate::hub::HubEntry;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Beginnings of the names of a split's shards, the preferred first: `test` has no labels where there is a `validation`.
pub(super) const POOL: [&str; 1] = ["train"];
pub(super) const TEST: [&str; 3] = ["validation", "val", "test"];

/// Where shards may lie beside the folder itself.
pub(super) const DATA: &str = "data";

/// The files `<name>-*.parquet`, `<name>.parquet` or `<name>/*.parquet`, sorted, of the first name that has any.
pub(super) fn shard_paths(folder: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    for folder in [folder, &folder.join(DATA)] {
        for name in names {
            let mut paths = files_in(folder, |file| is_shard(file, name))?;
            paths.extend(files_in(&folder.join(name), |file| is_shard(&format!("{name}/{file}"), name))?);
            paths.sort_unstable();
            if !paths.is_empty() {
                return Ok(paths);
            }
        }
    }
    Err(Error::content(folder, format!("it holds no {}", wanted(names))))
}

/// Those of a repository's files that [`shard_paths`] would find in `folder`, which is empty for the repository itself.
pub(super) fn shards_among<'e>(entries: &'e [HubEntry], folder: &str, names: &[&str]) -> Vec<&'e HubEntry> {
    let root = Path::new(folder);
    for folder in [root, &root.join(DATA)] {
        for name in names {
            let is_wanted = |entry: &&HubEntry| {
                let inner = Path::new(&entry.path).strip_prefix(folder).ok().and_then(Path::to_str);
                inner.is_some_and(|path| is_shard(path, name))
            };
            let mut shards: Vec<&HubEntry> = entries.iter().filter(is_wanted).collect();
            shards.sort_unstable_by_key(|entry| Path::new(&entry.path));
            if !shards.is_empty() {
                return shards;
            }
        }
    }
    Vec::new()
}

/// Whether `path`, inside a folder of shards, is one of the split that is called `name`.
fn is_shard(path: &str, name: &str) -> bool {
    let Some(stem) = path.strip_suffix(".parquet") else { return false };
    match stem.split_once('/') {
        Some((folder, file)) => folder == name && !file.is_empty() && !file.starts_with('.') && !file.contains('/'),
        None => stem == name || stem.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')),
    }
}

/// What the shards of a split called by one of `names` look like.
pub(super) fn wanted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name}-*.parquet")).collect();
    names.join(" or ")
}

/// The files in `folder` with such a name; none if there is no folder.
fn files_in(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("cannot read", folder))?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(&is_wanted) {
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
    fn shards_are_told_by_their_names() {
        for path in ["val.parquet", "val-0.parquet", "val-00000-of-00014.parquet", "val/0000.parquet"] {
            assert!(is_shard(path, "val"), "{path}");
        }
        for path in [
            "validation-0.parquet",
            "val-0.parquet.part",
            "val",
            "val/.parquet",
            "val/.0.parquet",
            "val/a/0.parquet",
            "a/val-0.parquet",
            "a/val/0.parquet",
            ".parquet",
        ] {
            assert!(!is_shard(path, "val"), "{path}");
        }
    }

    #[test]
    fn a_repository_and_its_copy_have_the_same_shards_in_the_same_order() {
        let copy = tempfile::tempdir().unwrap();
        let paths =
            ["c/train-1.parquet", "c/train-0.parquet", "c/train/2.parquet", "c/data/train-9.parquet", "train-5.txt"];
        let entries: Vec<HubEntry> = paths.iter().map(|path| HubEntry { path: path.to_string(), bytes: 0 }).collect();
        for path in paths {
            std::fs::create_dir_all(copy.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(copy.path().join(path), "").unwrap();
        }
        for (folder, expected) in [
            ("c", &["c/train/2.parquet", "c/train-0.parquet", "c/train-1.parquet"][..]),
            ("c/data", &["c/data/train-9.parquet"]),
            ("", &[]),
        ] {
            let shards: Vec<&str> =
                shards_among(&entries, folder, &POOL).into_iter().map(|entry| entry.path.as_str()).collect();
            assert_eq!(shards, expected, "{folder}");
            let in_copy = shard_paths(&copy.path().join(folder), &POOL).unwrap_or_default();
            assert_eq!(in_copy, expected.iter().map(|path| copy.path().join(path)).collect::<Vec<_>>(), "{folder}");
        }
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
