//! Taking runs and cached files away.

use super::TEMPORARY;
use crate::disk::cache::Cache;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Something that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removable {
    pub path: PathBuf,
    pub bytes: u64,
    /// Why it may.
    pub why: String,
}

impl Removable {
    /// What lies at `path`, with its size as it is now, and why it may go.
    pub fn new(path: PathBuf, why: impl Into<String>) -> Self {
        Self { bytes: size_bytes(&path), path, why: why.into() }
    }

    /// Removes the file, or the folder with all that is in it. A folder disappears at once: what an interruption leaves of
    /// it is a leftover that no scan takes for a run.
    pub fn remove(&self) -> Result<()> {
        let path = &self.path;
        if !path.is_dir() {
            return std::fs::remove_file(path).map_err(Error::io("cannot remove", path));
        }
        let parent = path.parent().unwrap_or(Path::new("."));
        let aside = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempdir_in(parent)
            .map_err(Error::io("cannot write into", parent))?;
        std::fs::rename(path, aside.path().join("removed")).map_err(Error::io("cannot remove", path))?;
        aside.close().map_err(Error::io("cannot remove", path))
    }
}

/// Bytes of the file, or of all files below the folder. What cannot be read counts nothing.
pub fn size_bytes(path: &Path) -> u64 {
    files_below(path).iter().map(|file| file.bytes).sum()
}

struct CachedFile {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// What a [`Cache`] keeps in `folder`; nothing that others put there.
fn cached_in(folder: &Path) -> Vec<CachedFile> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_entry = |entry: &std::fs::DirEntry| {
        entry.file_type().is_ok_and(|kind| kind.is_file()) && Cache::is_entry_name(&entry.file_name().to_string_lossy())
    };
    entries.filter(is_entry).flat_map(|entry| files_below(&entry.path())).collect()
}

/// Every file at or below `path`; links are not followed.
fn files_below(path: &Path) -> Vec<CachedFile> {
    let Ok(metadata) = path.symlink_metadata() else { return Vec::new() };
    if !metadata.is_dir() {
        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        return vec![CachedFile { path: path.to_path_buf(), bytes: metadata.len(), used }];
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.flat_map(|entry| files_below(&entry.path())).collect()
}

/// What caches keep in `folders` and must go for the rest to fit into `limit_bytes`, the least recently used first.
///
/// Other files there neither go nor count: the folder of the cache may be anybody's.
pub fn over_limit(folders: &[impl AsRef<Path>], limit_bytes: u64) -> Vec<Removable> {
    let mut files: Vec<CachedFile> = folders.iter().flat_map(|folder| cached_in(folder.as_ref())).collect();
    files.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let mut excess = files.iter().map(|file| file.bytes).sum::<u64>().saturating_sub(limit_bytes);
    let mut over = Vec::new();
    for CachedFile { path, bytes, used } in files {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(bytes);
        let unix_s = used.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        over.push(Removable { path, bytes, why: format!("cache, last used {}", super::time::utc(unix_s)) });
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::cache::mark_used;
    use std::fs::File;
    use std::time::Duration;

    #[test]
    fn the_least_recently_used_files_go_until_the_rest_fits() {
        let cache = tempfile::tempdir().unwrap();
        for (index, name) in ["a", "b", "c"].iter().enumerate() {
            let path = cache.path().join(name.repeat(32));
            std::fs::write(&path, vec![0; 100]).unwrap();
            let used = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + index as u64);
            File::options().append(true).open(&path).unwrap().set_modified(used).unwrap();
        }
        // Of others: they stay and do not count.
        let foreign =
            ["notes.txt", "thesis/", "thesis/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"].map(|name| cache.path().join(name));
        std::fs::create_dir(&foreign[1]).unwrap();
        [&foreign[0], &foreign[2]].into_iter().for_each(|path| std::fs::write(path, vec![0; 100]).unwrap());
        let over = |limit: u64| {
            let over = over_limit(&[cache.path()], limit);
            over.iter()
                .map(|file| file.path.file_name().unwrap().to_str().unwrap()[..1].to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(size_bytes(cache.path()), 500);
        assert_eq!((over(300), over(299), over(200)), (vec![], vec!["a".to_string()], vec!["a".to_string()]));
        assert_eq!(over(199), ["a", "b"]);
        mark_used(&cache.path().join("a".repeat(32)));
        assert_eq!(over(0), ["b", "c", "a"]);
        for file in over_limit(&[cache.path()], 100) {
            file.remove().unwrap();
        }
        assert_eq!((size_bytes(cache.path()), over(100)), (300, vec![]));
        assert!(foreign.iter().all(|path| path.exists()));
        assert!(over_limit(&[&cache.path().join("nowhere")], 0).is_empty());
    }

    #[test]
    fn a_removed_folder_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("run");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("record.json"), "12345").unwrap();
        let removable = Removable::new(folder, "asked for");
        assert_eq!(removable.bytes, 5);
        removable.remove().unwrap();
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
        assert!(removable.remove().unwrap_err().to_string().contains("cannot remove"));
    }
}
