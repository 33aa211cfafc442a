//! Files that are either whole or absent.

use crate::error::{Error, Result};
use std::io::Write;
use std::path::Path;
use tempfile::NamedTempFile;

/// Writes `content` to `path` through a temporary file beside it, making the folder if it is missing.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    persist(path, content, true)
}

/// The same for what nobody misses after a crash of the system: the disk is not waited for.
pub fn write_unsynced(path: &Path, content: &[u8]) -> Result<()> {
    persist(path, content, false)
}

fn persist(path: &Path, content: &[u8], sync: bool) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io("cannot make folder", folder))?;
    let mut file = NamedTempFile::new_in(folder).map_err(Error::io("cannot write into", folder))?;
    let written = file.write_all(content).and_then(|()| if sync { file.as_file().sync_all() } else { Ok(()) });
    written.map_err(Error::io("cannot write", path))?;
    readable_by_all(file.as_file()).map_err(Error::io("cannot set the mode of", path))?;
    file.persist(path).map_err(|error| Error::Io {
        action: "cannot write",
        path: path.to_path_buf(),
        source: error.error,
    })?;
    Ok(())
}

/// Temporary files are private; results are to be read by colleagues.
#[cfg(unix)]
fn readable_by_all(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable_by_all(_file: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}
