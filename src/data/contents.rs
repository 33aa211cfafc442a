//! The hash of a split's labels and images, which tells test sets apart that only look alike: names and sizes of files do not
//! say what is in them, nor in which order.
//!
//! Reading all test images of ImageNet takes a minute. So the hash is remembered, in a [`Cache`], for as long as the files stay
//! untouched: same path, device, inode and size, and the same times of the last change of content and of the file itself, of
//! which the second cannot be set by hand.

use super::item::Item;
use super::source::ImageSource;
use crate::disk::cache::Cache;
use crate::disk::sha256;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Raised when another hash is made of the same images.
const REVISION: u32 = 1;
/// Images whose files are in memory at once.
const READ: usize = 256;
/// A file that was changed so short a time ago may change again without a new time stamp.
const UNSETTLED: Duration = Duration::from_secs(2);

impl ImageSource {
    /// SHA-256 of the labels and contents of all images in order: of levels and labels where they are in memory, else of
    /// each image's label and encoded bytes.
    ///
    /// Errors: files that cannot be read; labels out of range.
    pub fn content_sha256(&self, remembered: Option<&Cache>) -> Result<String> {
        self.content_sha256_at(remembered, SystemTime::now())
    }

    fn content_sha256_at(&self, remembered: Option<&Cache>, now: SystemTime) -> Result<String> {
        let paths = match self {
            ImageSource::Memory(stored) => return Ok(stored.sha256()),
            ImageSource::Files(files) => files.paths(),
            ImageSource::Shards(shards) => shards.paths(),
        };
        let key = || -> Result<Option<String>> {
            let stamp = stamp(&paths, now)?;
            Ok(stamp.map(|stamp| format!("contents {REVISION}\n{}\n{stamp}", self.labelling())))
        };
        let before = key()?;
        if let (Some(cache), Some(key)) = (remembered, &before)
            && let Some(hash) = cache.get(key).and_then(|hash| String::from_utf8(hash).ok())
        {
            return Ok(hash);
        }
        let indices: Vec<u32> = (0..self.len() as u32).collect();
        let mut hashes = String::new();
        for indices in indices.chunks(READ) {
            let items: Vec<String> = self.read(indices)?.par_iter().map(Item::sha256).collect();
            hashes.extend(items);
        }
        let hash = sha256(&[hashes.as_bytes()]);
        // What was changed meanwhile was perhaps read in parts.
        if let (Some(cache), Some(before), Some(after)) = (remembered, before, key()?)
            && before == after
        {
            cache.put(&before, hash.as_bytes());
        }
        Ok(hash)
    }
}

/// What tells whether files were touched; `None` where the time stamps do not yet.
fn stamp(paths: &[PathBuf], now: SystemTime) -> Result<Option<String>> {
    let stamps: Vec<Option<String>> = paths.par_iter().map(|path| stamp_of(path, now)).collect::<Result<_>>()?;
    Ok(stamps.into_iter().collect::<Option<Vec<String>>>().map(|stamps| stamps.concat()))
}

fn stamp_of(path: &Path, now: SystemTime) -> Result<Option<String>> {
    let metadata = std::fs::metadata(path).map_err(Error::io("cannot read", path))?;
    let Ok(modified) = metadata.modified() else { return Ok(None) };
    let since_1970 = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut stamp = format!("{} {} {:?}", path.display(), metadata.len(), since_1970(modified));
    let mut last = since_1970(modified);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let changed = Duration::new(metadata.ctime().try_into().unwrap_or(0), metadata.ctime_nsec() as u32);
        last = last.max(changed);
        let (device, inode) = (metadata.dev(), metadata.ino());
        // Writing to a String cannot fail.
        write!(stamp, " {changed:?} {device} {inode}").ok();
    }
    stamp.push('\n');
    Ok((last + UNSETTLED < since_1970(now)).then_some(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::folder::Files;
    use std::fs;

    /// Two classes with an image each; nothing is decoded.
    fn folder(contents: [&str; 2]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (class, content) in ["a", "b"].iter().zip(contents) {
            fs::create_dir_all(folder.path().join("val").join(class)).unwrap();
            fs::write(folder.path().join("val").join(class).join("0.png"), content).unwrap();
        }
        folder
    }

    fn source(folder: &tempfile::TempDir) -> ImageSource {
        ImageSource::Files(Files::open(folder.path(), "val", &["a".to_string(), "b".to_string()]).unwrap())
    }

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    #[test]
    fn images_that_changed_places_are_another_split() {
        let hash = |contents| source(&folder(contents)).content_sha256(None).unwrap();
        assert_eq!(hash(["1", "2"]), hash(["1", "2"]));
        assert_ne!(hash(["1", "2"]), hash(["2", "1"]));
        assert_ne!(hash(["12", ""]), hash(["1", "2"]));
    }

    #[test]
    fn what_is_remembered_is_used_until_a_file_is_touched() {
        let (folder, caches) = (folder(["1", "2"]), tempfile::tempdir().unwrap());
        let cache = Cache::new(caches.path().to_path_buf());
        let hash = |now| source(&folder).content_sha256_at(Some(&cache), now).unwrap();
        let entries = || fs::read_dir(caches.path()).map_or(0, |entries| entries.count());
        let first = hash(SystemTime::now());
        assert_eq!(entries(), 0, "time stamps say nothing yet");
        assert_eq!((hash(later()), entries()), (first.clone(), 1));
        // The entry is what the next one reads, and a damaged one is not believed.
        let key = format!("contents {REVISION}\n\n{}", stamp(&files(&folder), later()).unwrap().unwrap());
        cache.put(&key, b"remembered");
        assert_eq!(hash(later()), "remembered");
        let entry = fs::read_dir(caches.path()).unwrap().next().unwrap().unwrap().path();
        fs::write(&entry, "damaged").unwrap();
        assert_eq!(hash(later()), first);
        // As large as before, and with the time stamp that it had.
        let path = folder.path().join("val/a/0.png");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        // The system's clock for time stamps ticks more slowly than this test runs.
        std::thread::sleep(Duration::from_millis(50));
        fs::write(&path, "3").unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        let second = hash(later());
        assert_ne!(second, first);
        assert_eq!(second, source(&folder).content_sha256(None).unwrap());
    }

    fn files(folder: &tempfile::TempDir) -> Vec<PathBuf> {
        ["a", "b"].map(|class| folder.path().join("val").join(class).join("0.png")).to_vec()
    }
}
