//! Taking runs and cached files away.

use super::TEMPORARY;
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

/// The files below `folders` that must go for the others to fit into `limit_bytes`, the least recently used first.
pub fn over_limit(folders: &[&Path], limit_bytes: u64) -> Vec<Removable> {
    let mut files: Vec<CachedFile> = folders.iter().flat_map(|folder| files_below(folder)).collect();
    files.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let mut excess = files.iter().map(|file| file.bytes).sum::<u64>().saturating_sub(limit_bytes);
    let mut over = Vec::new();
    for CachedFile { path, bytes, used } in files {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(bytes);
        let unix_s = used.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        over.push(Removable { path, bytes, why: format!("cache, last used {}", super::collection::utc(unix_s)) });
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
        for (index, name) in ["a", "deep/b", "c"].iter().enumerate() {
            let path = cache.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, vec![0; 100]).unwrap();
            let used = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + index as u64);
            File::options().append(true).open(&path).unwrap().set_modified(used).unwrap();
        }
        let over = |limit: u64| {
            let over = over_limit(&[cache.path()], limit);
            over.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(size_bytes(cache.path()), 300);
        assert_eq!((over(300), over(299), over(200)), (vec![], vec!["a".to_string()], vec!["a".to_string()]));
        assert_eq!(over(199), ["a", "b"]);
        mark_used(&cache.path().join("a"));
        assert_eq!(over(0), ["b", "c", "a"]);
        for file in over_limit(&[cache.path()], 100) {
            file.remove().unwrap();
        }
        assert_eq!((size_bytes(cache.path()), over(100)), (100, vec![]));
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
