//! Results that cells share, kept between runs: content by key, in a folder.

use super::atomic;
use super::sha256;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Hexadecimal digits of the name of an entry.
const NAME_DIGITS: usize = 32;
/// Bytes of the checksum that an entry begins with.
const CHECKSUM_BYTES: usize = 32;

/// A folder of entries, each named after the SHA-256 of all that its content depends on.
///
/// Processes may share it: an entry appears whole or not at all, and whoever finds none, or a damaged one, computes it
/// again. Reading an entry marks it as used; the least recently used go first ([`over_limit`](crate::store::removal::over_limit)).
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    /// Keys that some thread holds.
    held: Mutex<HashSet<String>>,
    released: Condvar,
}

/// A key that no other thread of this process holds until this is dropped.
pub struct Held<'a> {
    cache: &'a Cache,
    key: String,
}

impl Cache {
    /// Of entries in `folder`, which need not be there yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, held: Mutex::default(), released: Condvar::new() }
    }

    /// Waits until no other thread of this process holds `key`: who looks, computes and keeps while holding it does so once for
    /// all cells that run at the same time.
    pub fn hold(&self, key: &str) -> Held<'_> {
        let is_held = |held: &mut HashSet<String>| !held.insert(key.to_string());
        let held = self.released.wait_while(self.held(), is_held);
        drop(held.unwrap_or_else(PoisonError::into_inner));
        Held { cache: self, key: key.to_string() }
    }

    /// A set is whole whatever panicked.
    fn held(&self) -> MutexGuard<'_, HashSet<String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content kept for `key`; `None` if there is none whose checksum is right.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key);
        let mut entry = std::fs::read(&path).ok()?;
        let content = entry.get(CHECKSUM_BYTES..)?;
        if Sha256::digest(content)[..] != entry[..CHECKSUM_BYTES] {
            return None;
        }
        mark_used(&path);
        entry.drain(..CHECKSUM_BYTES);
        Some(entry)
    }

    /// Keeps `content` for `key`. Where that cannot be written it is computed again next time, and nothing else is lost.
    pub fn put(&self, key: &str, content: &[u8]) {
        let entry = [&Sha256::digest(content)[..], content].concat();
        atomic::write_unsynced(&self.path(key), &entry).ok();
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(&sha256(&[key.as_bytes()])[..NAME_DIGITS])
    }

    /// Whether a file of this name may be an entry.
    pub fn is_entry_name(name: &str) -> bool {
        name.len() == NAME_DIGITS && name.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.cache.held().remove(&self.key);
        self.cache.released.notify_all();
    }
}

/// Remembers that a cached file was used now. Where that cannot be written it only goes earlier than it should.
pub fn mark_used(path: &Path) {
    if let Ok(file) = File::options().append(true).open(path) {
        file.set_modified(SystemTime::now()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::removal::over_limit;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn threads_that_need_the_same_compute_it_once_and_others_do_not_wait() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, computed) = (Cache::new(folder.path().to_path_buf()), AtomicUsize::new(0));
        let _other = cache.hold("b");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _held = cache.hold("a");
                    if cache.get("a").is_none() {
                        computed.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        cache.put("a", b"content");
                    }
                });
            }
        });
        assert_eq!(computed.into_inner(), 1);
    }

    #[test]
    fn what_is_kept_is_found_under_its_key_alone_and_not_when_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("new"));
        assert_eq!(cache.get("a"), None);
        cache.put("a", b"content");
        cache.put("b", b"");
        assert_eq!((cache.get("a"), cache.get("b")), (Some(b"content".to_vec()), Some(Vec::new())));
        let whole = std::fs::read(cache.path("a")).unwrap();
        for damage in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[damage] ^= 1;
            std::fs::write(cache.path("a"), damaged).unwrap();
            assert_eq!(cache.get("a"), None, "byte {damage}");
            std::fs::write(cache.path("a"), &whole[..damage]).unwrap();
            assert_eq!(cache.get("a"), None, "{damage} bytes");
        }
        cache.put("a", b"again");
        assert_eq!(cache.get("a"), Some(b"again".to_vec()));
    }

    #[test]
    fn a_read_entry_outlives_one_that_was_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_path_buf());
        for (age_s, key) in [(20, "a"), (10, "b")] {
            cache.put(key, b"12345678");
            let file = std::fs::File::options().append(true).open(cache.path(key)).unwrap();
            file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age_s)).unwrap();
        }
        assert!(cache.get("a").is_some());
        over_limit(&[folder.path()], 50).into_iter().for_each(|entry| entry.remove().unwrap());
        assert_eq!((cache.get("a").is_some(), cache.get("b")), (true, None));
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_nothing_but_the_entry() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = Cache::new(file.path().to_path_buf());
        cache.put("a", b"content");
        assert_eq!(cache.get("a"), None);
    }
}
