//! What trackers have yet to be sent: a file per run in `runs/.tracking/unsent/`, which names the server. The runs themselves are the
//! records beside it, so that what was not sent can be sent from them at any time.

use super::LEDGER;
use super::time::since_1970;
use crate::disk::atomic;
use crate::disk::foreign::read_text;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file that names the folder.
const ID: &str = "id";
const UNSENT: &str = "unsent";

/// Of the runs of one experiment.
#[derive(Clone, Debug)]
pub struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// Of the runs in the folder `runs`; nothing is created yet.
    pub(super) fn of(runs: &Path) -> Self {
        Self { folder: runs.join(LEDGER) }
    }

    /// What tells these runs from those of the same names in other folders, made when it is first asked for: 32 hexadecimal digits.
    pub fn id(&self) -> Result<String> {
        let path = self.folder.join(ID);
        match read_text("cannot read", &path) {
            Ok(id) if is_id(id.trim()) => return Ok(id.trim().to_string()),
            Ok(_) => return Err(Error::content(path, "is not the id of a folder; remove it, and a new one is made")),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        std::fs::create_dir_all(&self.folder).map_err(Error::io("cannot make folder", &self.folder))?;
        let into = |error| Error::io("cannot write into", &self.folder)(error);
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).map_err(into)?;
        writeln!(file, "{}", new_id(file.path())).map_err(Error::io("cannot write", &path))?;
        // Of several processes that make one at once the first names the folder.
        match file.persist_noclobber(&path) {
            Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Error::io("cannot write", &path)(error.error))
            }
            _ => self.id(),
        }
    }

    /// Notes that `server` has yet to be sent run `id`.
    pub fn owe(&self, id: &str, server: &str) -> Result<()> {
        atomic::write_unsynced(&self.path(id), server.as_bytes())
    }

    /// Takes that back, if it is that server which was noted. Where that fails it is sent once more.
    pub fn settle(&self, id: &str, server: &str) {
        if self.server_of(id).is_some_and(|owed| owed == server) {
            std::fs::remove_file(self.path(id)).ok();
        }
    }

    /// The ids of the runs that `server` has yet to be sent, sorted.
    pub fn owed(&self, server: &str) -> Result<Vec<String>> {
        let paths = super::entries(&self.folder.join(UNSENT))?;
        let mut ids: Vec<String> =
            paths.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_string())).collect();
        ids.retain(|id| self.server_of(id).is_some_and(|owed| owed == server));
        ids.sort();
        Ok(ids)
    }

    fn server_of(&self, id: &str) -> Option<String> {
        read_text("cannot read", &self.path(id)).ok()
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(UNSENT).join(id)
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// From the time, the process, and the random name of a file: two folders with the same id would be taken for one.
fn new_id(random: &Path) -> String {
    let mut hash = Sha256::new();
    let since = since_1970().as_nanos();
    hash.update(format!("{since} {} {}", std::process::id(), random.display()));
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_id_and_another_has_another() {
        let runs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [one, other] = [&runs[0], &runs[1]].map(|runs| Ledger::of(runs.path()));
        let ids: Vec<String> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| one.id().unwrap())).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0] && is_id(id)), "{ids:?}");
        assert!(other.id().unwrap() != ids[0]);
        std::fs::write(runs[0].path().join(".tracking/id"), "x").unwrap();
        assert!(one.id().unwrap_err().to_string().contains("remove it"));
    }

    #[test]
    fn what_one_server_is_owed_another_does_not_settle() {
        let runs = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(runs.path());
        assert_eq!(ledger.owed("http://a").unwrap(), [""; 0]);
        for (id, server) in [("run-b", "http://a"), ("run-a", "http://a"), ("run-c", "http://b")] {
            ledger.owe(id, server).unwrap();
        }
        ledger.settle("run-b", "http://b");
        assert_eq!(ledger.owed("http://a").unwrap(), ["run-a", "run-b"]);
        ledger.settle("run-b", "http://a");
        ledger.settle("never-there", "http://a");
        assert_eq!(
            (ledger.owed("http://a").unwrap(), ledger.owed("http://b").unwrap()),
            (vec!["run-a".into()], vec!["run-c".into()])
        );
    }
}
