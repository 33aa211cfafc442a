//! The layout of the cache that `huggingface_hub` and `hf-hub` write: blobs by entity tag, snapshots that point at them.
//!
//! ```text
//! models--OWNER--NAME/refs/REVISION                 the commit that a branch or tag was last seen at
//!                     snapshots/COMMIT/FILE         a link to
//!                     blobs/ETAG                    the content; ETAG.incomplete while it comes
//!                     .no_exist/COMMIT/FILE         the commit has no such file
//!                     .listing/COMMIT.json          the files of the commit: of this program alone
//! .locks/models--OWNER--NAME/ETAG.lock              held by whoever downloads
//! ```

use super::HubEntry;
use super::name::{HubFile, HubRepo, is_commit, is_sha256};
use crate::disk::atomic;
use crate::error::{Error, Result};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// One repository's part of the cache.
pub(super) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

/// What a cache knows of a file.
pub(super) enum Cached {
    At(PathBuf),
    /// The commit has no such file.
    Missing,
}

/// Keeps other processes from downloading the same content.
pub(super) enum Lock {
    /// Until it is dropped.
    Held { _file: File },
    /// The file system has no locks.
    Unsupported,
}

impl RepoCache {
    pub fn new(cache: &Path, repo: &HubRepo) -> Self {
        let folder = format!("{}--{}", repo.kind().plural(), repo.name().replace('/', "--"));
        Self { root: cache.join(&folder), locks: cache.join(".locks").join(folder) }
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where content is collected; on a file system without locks, in a file of this process alone.
    pub fn incomplete(&self, etag: &str, lock: &Lock) -> PathBuf {
        let of_process = match lock {
            Lock::Held { .. } => String::new(),
            Lock::Unsupported => format!(".{}", std::process::id()),
        };
        self.root.join("blobs").join(format!("{etag}{of_process}.incomplete"))
    }

    /// What the cache knows of `file`, whose revision is a commit.
    pub fn find(&self, file: &HubFile) -> Option<Cached> {
        let pointer = self.pointer(file);
        match pointer.exists() {
            true => Some(Cached::At(pointer)),
            false => self.no_exist(file).exists().then_some(Cached::Missing),
        }
    }

    fn pointer(&self, file: &HubFile) -> PathBuf {
        self.root.join("snapshots").join(file.repo().revision()).join(file.file())
    }

    fn no_exist(&self, file: &HubFile) -> PathBuf {
        self.root.join(".no_exist").join(file.repo().revision()).join(file.file())
    }

    /// The commit that `revision` was last seen at.
    pub fn commit_of(&self, revision: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        Some(text.trim().to_string()).filter(|commit| is_commit(commit))
    }

    pub fn remember_commit(&self, revision: &str, commit: &str) -> Result<()> {
        match is_commit(revision) || self.commit_of(revision).as_deref() == Some(commit) {
            true => Ok(()),
            false => atomic::write(&self.root.join("refs").join(revision), commit.as_bytes()),
        }
    }

    /// Writes down that the commit which is the revision of `file` has no such file.
    pub fn remember_missing(&self, file: &HubFile) -> Result<()> {
        atomic::write(&self.no_exist(file), b"")
    }

    /// The files that the repository has at `commit`, if they were ever listed.
    pub fn listing(&self, commit: &str) -> Option<Vec<HubEntry>> {
        serde_json::from_slice(&std::fs::read(self.listing_path(commit)).ok()?).ok()
    }

    pub fn remember_listing(&self, commit: &str, entries: &[HubEntry]) -> Result<()> {
        let path = self.listing_path(commit);
        let json = serde_json::to_vec(entries).map_err(|error| Error::content(&path, error.to_string()))?;
        atomic::write(&path, &json)
    }

    fn listing_path(&self, commit: &str) -> PathBuf {
        self.root.join(".listing").join(format!("{commit}.json"))
    }

    /// Makes the snapshot that `file` belongs to point at the blob; at every moment the pointer is missing or right.
    pub fn point(&self, file: &HubFile, etag: &str) -> Result<PathBuf> {
        let pointer = self.pointer(file);
        let folder = pointer.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(Error::io("cannot make folder", folder))?;
        let new = folder.join(format!(".{etag}.{}", std::process::id()));
        let depth = 2 + file.file().matches('/').count();
        let blob = format!("{}blobs/{etag}", "../".repeat(depth));
        link(Path::new(&blob), &self.blob(etag), &new)
            .and_then(|()| std::fs::rename(&new, &pointer))
            .map_err(Error::io("cannot write", &pointer))?;
        Ok(pointer)
    }

    /// Waits for the lock of `etag`; `waiting` is called once if somebody else has it.
    pub fn lock(&self, etag: &str, waiting: impl FnOnce()) -> Result<Lock> {
        std::fs::create_dir_all(&self.locks).map_err(Error::io("cannot make folder", &self.locks))?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::create(&path).map_err(Error::io("cannot write", &path))?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        // Network file systems without locks say so in several ways; what is done without a lock is right anyway.
        Ok(if locked.is_ok() { Lock::Held { _file: file } } else { Lock::Unsupported })
    }
}

/// The SHA-256 that the Hub announced for the file at `pointer`: large files are stored under it.
pub(super) fn announced_sha256(pointer: &Path) -> Option<String> {
    let target = std::fs::read_link(pointer).ok()?;
    target.file_name()?.to_str().filter(|name| is_sha256(name)).map(str::to_lowercase)
}

#[cfg(unix)]
fn link(relative: &Path, _blob: &Path, new: &Path) -> std::io::Result<()> {
    let _ = std::fs::remove_file(new);
    std::os::unix::fs::symlink(relative, new)
}

/// Links need rights that users of Windows rarely have: `hf-hub` copies there too.
#[cfg(not(unix))]
fn link(_relative: &Path, blob: &Path, new: &Path) -> std::io::Result<()> {
    std::fs::copy(blob, new).map(|_| ())
}
