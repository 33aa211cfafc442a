//! What is done to the folder of claims, and how an owner's death is told.

use super::Owner;
use crate::error::{Error, Result};
use crate::store::{TEMPORARY, read_if_there};
use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// The steps of which the protocol is made: between two of them anything may happen.
pub(super) trait Files {
    /// The content of the file `name`; `None` if there is none, or none was when this machine last asked.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Makes the file `name`, whole; whether nobody else was faster.
    fn link(&self, name: &str, content: &[u8]) -> Result<bool>;

    /// Removes the file `name`, if it is still there.
    fn remove(&self, name: &str) -> Result<()>;

    /// Has the next reads see what there is now.
    fn look_anew(&self) -> Result<()>;

    /// Whether `owner` has ended, or has shown no sign of life for too long.
    fn is_dead(&self, owner: &Owner) -> Result<bool>;
}

/// The folder itself, as a process on the machine that was started as `boot` says sees it.
pub(super) struct Folder {
    folder: PathBuf,
    boot: String,
    seen: Mutex<Sightings>,
}

impl Folder {
    pub fn new(folder: PathBuf, boot: String, dead_after: Duration) -> Self {
        Self { folder, boot, seen: Mutex::new(Sightings { dead_after, last: HashMap::new() }) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Files for Folder {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        read_if_there(&self.path(name))
    }

    fn link(&self, name: &str, content: &[u8]) -> Result<bool> {
        let (mut file, place) = (new_file(&self.folder)?, self.path(name));
        file.write_all(content).map_err(Error::io("cannot claim", &place))?;
        match std::fs::hard_link(file.path(), &place) {
            Ok(()) => Ok(true),
            // The answer of a server may be lost, and its repetition finds the link that it made.
            Err(_) if is_linked(file.path()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::io("cannot claim", &place)(error)),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("cannot remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn look_anew(&self) -> Result<()> {
        look_anew(&self.folder)
    }

    fn is_dead(&self, owner: &Owner) -> Result<bool> {
        let path = self.path(&owner.owner);
        if owner.is_of(&self.boot) {
            return Ok(is_unlocked(&path));
        }
        let content = match std::fs::read(&path) {
            Ok(content) => content,
            // A server that is away says nothing of who lives.
            Err(error) => return Ok(error.kind() == ErrorKind::NotFound),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(seen.is_silent(&owner.owner, content, Instant::now()))
    }
}

/// Has this machine see what others have made in `folder`: with its answer to a change a server says how the folder is now.
pub(in crate::store) fn look_anew(folder: &Path) -> Result<()> {
    new_file(folder).map(drop)
}

/// A file without a name that matters, removed when it is dropped; what a killed process leaves of it is a leftover.
fn new_file(folder: &Path) -> Result<NamedTempFile> {
    // Whoever removes the folder of results while a grid runs does not stop it.
    std::fs::create_dir_all(folder).map_err(Error::io("cannot make folder", folder))?;
    let file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder);
    file.map_err(Error::io("cannot write into", folder))
}

/// By owner: the content of its file when it was last seen to change, and when that was.
struct Sightings {
    dead_after: Duration,
    last: HashMap<String, (Vec<u8>, Instant)>,
}

impl Sightings {
    /// Whether the file of `owner`, which has `content` now, has not changed for too long.
    fn is_silent(&mut self, owner: &str, content: Vec<u8>, now: Instant) -> bool {
        let (last, since) = self.last.entry(owner.to_string()).or_insert_with(|| (content.clone(), now));
        if *last != content {
            (*last, *since) = (content, now);
        }
        now.saturating_duration_since(*since) > self.dead_after
    }
}

/// Whether no process of this machine holds the file, or there is none.
pub(super) fn is_unlocked(path: &Path) -> bool {
    File::open(path).map_or_else(|error| error.kind() == ErrorKind::NotFound, |file| file.try_lock_shared().is_ok())
}

#[cfg(unix)]
fn is_linked(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| std::os::unix::fs::MetadataExt::nlink(&there) > 1)
}

#[cfg(not(unix))]
fn is_linked(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::claims::{BEAT, Claims};

    /// Beats reach others up to half a minute late, as a client of NFS may remember a file; others look when they have time.
    #[test]
    fn whoever_beats_is_never_silent_and_whoever_stops_is_soon() {
        let dead_after_s = Claims::DEAD_AFTER.as_secs();
        for (late_s, every_s) in [0, 7, 30].into_iter().flat_map(|late| [1, 4, 13, 59, 200].map(|every| (late, every)))
        {
            for stops_s in [0, 4, 100, 600] {
                let mut seen = Sightings { dead_after: Claims::DEAD_AFTER, last: HashMap::new() };
                let began = Instant::now();
                let beats = |now_s: u64| now_s.saturating_sub(late_s).min(stops_s) / BEAT.as_secs();
                let mut is_silent = |now_s: &u64| {
                    let content = beats(*now_s).to_string().into_bytes();
                    seen.is_silent("a", content, began + Duration::from_secs(*now_s))
                };
                let silent_s = (0..2_000).step_by(every_s).find(|now_s| is_silent(now_s)).unwrap();
                let (soonest_s, latest_s) = ((stops_s + dead_after_s).saturating_sub(BEAT.as_secs()), stops_s + late_s);
                assert!((soonest_s..=latest_s + dead_after_s + 2 * every_s as u64).contains(&silent_s), "{silent_s}");
            }
        }
    }

    #[test]
    fn an_owner_whose_file_cannot_be_read_is_not_dead_for_that() {
        let runs = tempfile::tempdir().unwrap();
        let folder = Folder::new(runs.path().to_path_buf(), "here".into(), Duration::ZERO);
        let owner = |name: &str| serde_json::json!({"owner": name, "host": "", "boot": "there", "process": 1});
        let is_dead = |name| folder.is_dead(&serde_json::from_value(owner(name)).unwrap()).unwrap();
        std::fs::create_dir(runs.path().join("unreadable")).unwrap();
        assert!(!is_dead("unreadable") && is_dead("gone"));
    }
}
