//! Files that somebody else made, read so that none of them ends the process: only regular files, of a stated size at most,
//! and whatever panics while one is read is an error that names it.

use crate::error::{Error, Result};
use std::any::Any;
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Bytes of the largest file that a run leaves behind: losses and predictions take less.
pub const LARGEST_OF_RUN: u64 = 1 << 30;
/// Bytes of the largest file of weights: those of the networks here, with what an optimiser keeps, take a tenth of it.
pub const LARGEST_WEIGHTS: u64 = 1 << 33;
/// Bytes of the largest text that people or tools write: grids, records, notes, configurations.
pub const LARGEST_TEXT: u64 = 1 << 24;

/// Opens the file at `path`; links are followed.
///
/// Errors: as the system has them, after `action`; a pipe or device, which would let a reader wait, or never end.
pub fn open(action: &'static str, path: &Path) -> Result<File> {
    let kind = std::fs::metadata(path).map_err(Error::io(action, path))?.file_type();
    // What is wrong with a folder the system says.
    if !kind.is_file() && !kind.is_dir() {
        return Err(Error::content(path, "a pipe, socket or device: regular files alone are read"));
    }
    File::open(path).map_err(Error::io(action, path))
}

/// The content of the file at `path`. Errors: as of [`open`]; more than `most` bytes.
pub fn read(action: &'static str, path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = open(action, path)?;
    let metadata = file.metadata().map_err(Error::io(action, path))?;
    let len = if metadata.is_file() { metadata.len() } else { 0 };
    let mut content = Vec::new();
    if len <= most {
        // The length is asked of the file again: it may grow.
        content.try_reserve_exact(len as usize).map_err(|error| Error::io(action, path)(error.into()))?;
        file.take(most.saturating_add(1)).read_to_end(&mut content).map_err(Error::io(action, path))?;
    }
    match len.max(content.len() as u64) {
        len if len > most => Err(Error::content(path, format!("{len} bytes; at most {most} are read"))),
        _ => Ok(content),
    }
}

/// The content of a text file of at most [`LARGEST_TEXT`] bytes. Errors: as of [`read`]; no UTF-8.
pub fn read_text(action: &'static str, path: &Path) -> Result<String> {
    String::from_utf8(read(action, path, LARGEST_TEXT)?).map_err(|_| Error::content(path, "not UTF-8 text"))
}

/// The text that the user names for a command, of at most [`LARGEST_TEXT`] bytes; it may be a pipe: `harness plan <(write-a-grid)`.
pub fn read_piped(action: &'static str, path: &Path) -> Result<String> {
    let (file, mut text) = (File::open(path).map_err(Error::io(action, path))?, String::new());
    file.take(LARGEST_TEXT + 1).read_to_string(&mut text).map_err(Error::io(action, path))?;
    match text.len() as u64 > LARGEST_TEXT {
        true => Err(Error::content(path, format!("more than {LARGEST_TEXT} bytes"))),
        false => Ok(text),
    }
}

/// What `read` makes of the file called `name`; a panic in it is an error, since whoever made the file must not end the process.
pub fn guarded<T>(name: impl Display, read: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(read).unwrap_or_else(|text| Err(Error::content(name.to_string(), unreadable(&text))))
}

/// What a panic of this text while a file was read means.
pub fn unreadable(text: &str) -> String {
    format!(
        "reading it panicked ({text}): the file is damaged or made to harm; if it is neither, please report this bug"
    )
}

/// What `work` gives, or the text of its panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("no message").to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_of_a_stated_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read("cannot read", &path, 5).unwrap(), b"12345");
        let error = read("cannot read", &path, 4).unwrap_err().to_string();
        assert!(error.ends_with("x: 5 bytes; at most 4 are read"), "{error}");
        // A file of which nothing but its end is on the disk.
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(read("cannot read", &path, 1 << 20).unwrap_err().to_string().contains("1099511627776 bytes"));
        let error = read("cannot read", folder.path(), 5).unwrap_err().to_string();
        assert!(error.starts_with("cannot read"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn nobody_waits_for_a_pipe_or_reads_a_device() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("x.jpg");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let error = read("cannot read", path, 1 << 20).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()) && error.contains("regular files alone"), "{error}");
        }
    }

    #[test]
    fn a_panic_about_a_file_names_it() {
        let error = guarded("some/file", || -> Result<()> { panic!("index {} is out of range", 3) }).unwrap_err();
        assert!(error.to_string().starts_with("some/file: reading it panicked (index 3 is out of range)"), "{error}");
    }
}
