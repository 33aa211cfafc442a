//! Files that are either whole or absent.

use crate::error::{Error, Result};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use tempfile::NamedTempFile;

/// Writes `content` to `path` through a temporary file beside it, making the folder if it is missing.
///
/// A symbolic link stays and what it leads to is replaced; what is no regular file, such as a device or a pipe, is written to as it is.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    persist(path, content, true)
}

/// The same for what nobody misses after a crash of the system: the disk is not waited for.
pub fn write_unsynced(path: &Path, content: &[u8]) -> Result<()> {
    persist(path, content, false)
}

fn persist(path: &Path, content: &[u8], sync: bool) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let linked = match std::fs::metadata(path) {
        Ok(there) if !there.is_file() && !there.is_dir() => {
            let file = OpenOptions::new().write(true).open(path);
            return file.and_then(|mut file| file.write_all(content)).map_err(Error::io("cannot write", path));
        }
        // Such as links that lead in a circle.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("cannot write", path)(error));
        }
        _ => path.read_link().ok().map(|target| folder.join(target)),
    };
    if let Some(target) = linked {
        return persist(&target, content, sync);
    }
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

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_written_through_and_a_pipe_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("deep/file"), folder.path().join("link"));
        std::os::unix::fs::symlink("deep/file", &link).unwrap();
        write(&link, b"old").unwrap();
        write(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        let circle = folder.path().join("circle");
        std::os::unix::fs::symlink("circle", &circle).unwrap();
        assert!(write(&circle, b"lost").is_err());
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        write(&pipe, b"content").unwrap();
        assert_eq!(reader.join().unwrap(), b"content");
        assert!(!pipe.is_file() && pipe.exists());
    }
}
