//! Puts a finished run in the place of an older one of its id, without a moment in which neither is there.
//!
//! A folder cannot be renamed over a full one: the old run steps aside first, to `.replaced-<run id>`. Whoever finds that and no
//! `<run id>` has found the run: the process was killed, or is, between the two renames. Where both are there, the old one is a leftover.

use super::NOTES;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Begins the name of a run that has stepped aside.
const REPLACED: &str = ".replaced-";

/// Where the run of the folder `target` steps aside to.
pub(super) fn aside(target: &Path) -> PathBuf {
    let id = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!("{REPLACED}{id}"))
}

/// The folder whose run has stepped aside to `path`, if it is such a place.
pub(super) fn target_of(path: &Path) -> Option<PathBuf> {
    let id = path.file_name()?.to_str()?.strip_prefix(REPLACED)?;
    Some(path.with_file_name(id))
}

/// Where the run of the folder `target` lies: there, or aside.
pub(super) fn present(target: PathBuf) -> PathBuf {
    let aside = aside(&target);
    if !target.exists() && aside.exists() { aside } else { target }
}

/// Makes the folder `new` the run `target`, which keeps the notes and tags that an older run of its id has.
///
/// Errors: it cannot be done; then the older run is where it was.
pub(super) fn put(new: TempDir, target: &Path) -> Result<()> {
    let aside = aside(target);
    undo_interrupted(target, &aside)?;
    let is_new = !target.exists();
    if !is_new {
        rename(target, &aside)?;
    }
    // Notes are taken when nobody finds the old run under its name any more: those that came meanwhile are among them.
    let put = if is_new { Ok(()) } else { copy_notes(&aside, new.path()) };
    if let Err(error) = put.and_then(|()| rename(new.path(), target)) {
        if !is_new {
            // Where this fails too, the run is found aside.
            rename(&aside, target).ok();
        }
        return Err(error);
    }
    // It has its name now: nothing is left to remove.
    let _ = new.keep();
    if !is_new {
        // What is left of it is a leftover.
        std::fs::remove_dir_all(&aside).ok();
    }
    Ok(())
}

/// Ends what a killed process began.
fn undo_interrupted(target: &Path, aside: &Path) -> Result<()> {
    match (aside.exists(), target.exists()) {
        (true, true) => std::fs::remove_dir_all(aside).map_err(Error::io("cannot remove", aside)),
        (true, false) => rename(aside, target),
        (false, _) => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(Error::io("cannot write", to))
}

fn copy_notes(from: &Path, to: &Path) -> Result<()> {
    let notes = from.join(NOTES);
    match std::fs::copy(&notes, to.join(NOTES)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("cannot copy", &notes)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::annotations::{Annotations, note};
    use crate::store::record::Record;
    use crate::store::{Artefacts, Store};

    /// A store with a run that has a note, and its folder.
    fn noted() -> (TempDir, Store, PathBuf) {
        let results = tempfile::tempdir().unwrap();
        let store = Store::new(results.path(), "x");
        write(&store, 0.5);
        let folder = store.run_folder(&record(0.5).run_id);
        note(&folder, "look").unwrap();
        (results, store, folder)
    }

    fn record(test_top1: f64) -> Record {
        Record::sample("", "qdrop", "W2A2", 0).with_top1(test_top1, 0.5).storable()
    }

    fn write(store: &Store, test_top1: f64) {
        store.write_run(&record(test_top1), "", &Artefacts::default()).unwrap();
    }

    /// Accuracies and notes of what is stored.
    fn stored(store: &Store) -> Vec<(f64, usize)> {
        let scan = store.scan().unwrap();
        assert!(scan.broken.is_empty(), "{:?}", scan.broken);
        let noted = |record: Record| {
            let folder = store.run_folder(&record.run_id);
            (record.metrics.unwrap().test_top1, Annotations::read(&folder).notes.len())
        };
        scan.records.into_iter().map(noted).collect()
    }

    #[test]
    fn a_process_that_is_killed_between_the_renames_loses_neither_run_nor_notes() {
        let (_results, store, folder) = noted();
        std::fs::rename(&folder, aside(&folder)).unwrap();
        assert_eq!(stored(&store), [(0.5, 1)]);
        assert!(store.leftovers().unwrap().is_empty());
        note(&store.run_folder(&record(0.5).run_id), "again").unwrap();
        write(&store, 0.6);
        assert_eq!(stored(&store), [(0.6, 2)]);
        assert!(!aside(&folder).exists());
    }

    #[test]
    fn what_is_aside_after_both_renames_is_a_leftover() {
        let (_results, store, folder) = noted();
        std::fs::create_dir(aside(&folder)).unwrap();
        assert_eq!((stored(&store), store.leftovers().unwrap()), (vec![(0.5, 1)], vec![aside(&folder)]));
        write(&store, 0.6);
        assert_eq!(stored(&store), [(0.6, 1)]);
    }

    #[test]
    fn a_new_run_that_cannot_be_renamed_leaves_the_old_one_in_its_place() {
        let (results, store, folder) = noted();
        let new = tempfile::tempdir_in(results.path()).unwrap();
        std::fs::remove_dir(new.path()).unwrap();
        assert!(put(new, &folder).is_err());
        assert_eq!(stored(&store), [(0.5, 1)]);
        assert!(folder.exists());
    }
}
