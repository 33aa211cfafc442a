//! The folder for what is worth keeping between experiments.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// `$HARNESS_CACHE`, `$XDG_CACHE_HOME/metaaug` or `~/.cache/metaaug`; `None` where none of them is set.
pub(super) fn kept() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("HARNESS_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("metaaug")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/metaaug")))
}

/// A folder that cells share: the one that is kept, or else one of this process alone.
pub(super) enum CacheFolder {
    Kept(PathBuf),
    /// Goes with it.
    Own(TempDir),
}

impl CacheFolder {
    /// Errors: no folder can be made.
    pub fn open() -> Result<Self> {
        match kept() {
            Some(folder) => Ok(CacheFolder::Kept(folder)),
            None => {
                let folder = tempfile::Builder::new().prefix("harness-cache-").tempdir();
                folder.map(CacheFolder::Own).map_err(Error::io("cannot write into", &std::env::temp_dir()))
            }
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            CacheFolder::Kept(folder) => folder,
            CacheFolder::Own(folder) => folder.path(),
        }
    }
}
