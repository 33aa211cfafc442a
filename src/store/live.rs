//! What a running grid says of itself: `results/<experiment>/runs/.live/state.json`, written about once per second by the
//! process that holds the experiment's lock, for whoever watches.
//!
//! The file counts only while a process holds the lock: what a killed process left there is ignored. Of several processes that work on
//! the experiment, one writes it. The file has a folder of its own, so that the folder of runs changes only with its runs.

use super::{Store, atomic, json};
use crate::disk::foreign::{LARGEST_TEXT, read};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Version of [`Live`]'s JSON.
pub const LIVE_FORMAT: u32 = 1;

/// How far a grid is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Live {
    pub format: u32,
    pub process: u32,
    /// Seconds since 1970 (UTC).
    pub started_unix_s: u64,
    pub updated_unix_s: u64,
    /// Cells that were stored before.
    pub stored: usize,
    /// Cells that this process has to run.
    pub pending: usize,
    pub done: usize,
    pub failed: usize,
    /// The cell that is running, or of several the one that began first.
    pub current: Option<Current>,
    /// The others that are running, in the order in which they began; readers from before there were any show one.
    #[serde(default)]
    pub beside: Vec<Current>,
}

/// A cell that is running.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Current {
    pub run_id: String,
    pub started_unix_s: u64,
    /// Units so far, the current one last.
    pub units: Vec<LiveUnit>,
    pub unit_count: usize,
    /// Images evaluated and their number, while it evaluates.
    pub evaluated: Option<(usize, usize)>,
}

/// A phase of a unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveUnit {
    /// From 0.
    pub index: usize,
    pub name: String,
    /// Empty before the first step.
    pub phase: String,
    pub iteration: usize,
    pub iterations: usize,
    /// Of the first step; null where it is not finite.
    pub first_loss: Option<f64>,
    pub loss: Option<f64>,
    /// Some iterations and their losses; of the current phase alone.
    pub curve: Vec<(usize, Option<f64>)>,
}

impl Live {
    /// The cells that are running.
    pub fn running(&self) -> impl Iterator<Item = &Current> {
        self.current.iter().chain(&self.beside)
    }
}

impl Store {
    fn live_path(&self) -> PathBuf {
        self.runs.join(".live").join("state.json")
    }

    /// The right to publish, for as long as the file is open; `None` while another process has it.
    pub fn live_lock(&self) -> Result<Option<File>> {
        let path = self.live_path().with_file_name("lock");
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(Error::io("cannot make folder", folder))?;
        let file = File::create(&path).map_err(Error::io("cannot write", &path))?;
        Ok(file.try_lock().is_ok().then_some(file))
    }

    /// Publishes `live`; only for a process that has the right to.
    pub fn write_live(&self, live: &Live) -> Result<()> {
        let path = self.live_path();
        atomic::write_unsynced(&path, &json(&path, live)?)
    }

    /// Removes what was published.
    pub fn remove_live(&self) -> Result<()> {
        let path = self.live_path();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("cannot remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// What the running grid says; `None` if none is running, or if it says nothing that this harness understands.
    pub fn live(&self) -> Option<Live> {
        let bytes = read("cannot read", &self.live_path(), LARGEST_TEXT).ok()?;
        let live: Live = serde_json::from_slice(&bytes).ok()?;
        (live.format == LIVE_FORMAT && self.is_locked()).then_some(live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_holder_of_the_lock_is_believed() {
        let results = tempfile::tempdir().unwrap();
        let store = Store::new(results.path(), "x");
        let live = Live {
            format: LIVE_FORMAT,
            process: 1,
            started_unix_s: 2,
            updated_unix_s: 3,
            stored: 4,
            pending: 5,
            done: 6,
            failed: 7,
            current: Some(Current { run_id: "a".into(), evaluated: Some((1, 2)), ..Current::default() }),
            beside: vec![Current { run_id: "b".into(), ..Current::default() }],
        };
        let lock = store.lock().unwrap();
        assert_eq!(store.live(), None);
        store.write_live(&live).unwrap();
        assert_eq!(store.live(), Some(live.clone()));
        store.write_live(&Live { format: LIVE_FORMAT + 1, ..live.clone() }).unwrap();
        assert_eq!(store.live(), None);
        // What another version of the harness wrote, which knew one running cell.
        let mut older = serde_json::to_value(&live).unwrap();
        older.as_object_mut().unwrap().remove("beside").unwrap();
        std::fs::write(store.live_path(), older.to_string()).unwrap();
        assert_eq!(store.live(), Some(Live { beside: Vec::new(), ..live.clone() }));
        store.write_live(&live).unwrap();
        assert!(store.scan().unwrap().broken.is_empty());
        drop(lock);
        assert_eq!(store.live(), None);
        store.remove_live().unwrap();
        store.remove_live().unwrap();
    }

    #[test]
    fn whoever_looks_does_not_keep_a_grid_from_starting() {
        let results = tempfile::tempdir().unwrap();
        let store = Store::new(results.path(), "x");
        drop(store.lock().unwrap());
        let file = std::fs::File::open(results.path().join("x/runs/.lock")).unwrap();
        file.try_lock_shared().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(40));
                file.unlock().unwrap();
            });
            assert!(store.lock().is_ok());
        });
    }
}
