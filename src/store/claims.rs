//! Which process makes which run, where several work on one folder of results.
//!
//! A claim is a file that names its owner, a process, and is made with a hard link: of several that ask at once, on whatever machines that
//! share the folder, one gets it. `runs/.claims/RUN.claim` is the first; the claim of one who takes over from a dead `OWNER` is
//! `RUN.after-OWNER`, so that of several who do so, too, one gets it. The last of the chain owns the run.
//!
//! An owner's file, `.claims/OWNER`, is locked for as long as the process lives, which the system tells to others on its machine, and its
//! content changes every few seconds, which others see. Clocks are not compared: an owner on another machine is dead for those who have seen
//! no change for [`Claims::DEAD_AFTER`].

use super::read_if_there;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two changes of an owner's file.
const BEAT: Duration = Duration::from_secs(5);
/// Of the claims, within that of the runs.
const FOLDER: &str = ".claims";
/// Begins the name of an owner's file.
const OWNER: &str = "owner-";

/// Who owns a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The name of its file.
    owner: String,
    pub host: String,
    /// Of the machine since it was started; empty where the system does not tell.
    boot: String,
    pub process: u32,
}

impl Owner {
    /// Whether it is on the machine that was started as `boot` says, where its end shows at once.
    fn is_of(&self, boot: &str) -> bool {
        !self.boot.is_empty() && self.boot == boot
    }
}

/// What somebody who asks for a run hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is theirs.
    Granted,
    /// Another process, which is alive, has it.
    Owned(Owner),
}

/// The claims of this process.
pub struct Claims {
    folder: PathBuf,
    me: Owner,
    /// Locked for as long as this lives.
    _alive: File,
    /// By owner: the content of its file when it was last seen to change, and when that was.
    seen: Mutex<HashMap<String, (Vec<u8>, Instant)>>,
    /// Ends the beats when it goes.
    over: Option<Sender<()>>,
    beats: Option<JoinHandle<()>>,
    dead_after: Duration,
}

impl Claims {
    /// How long an owner on another machine may show no sign of life.
    pub const DEAD_AFTER: Duration = Duration::from_secs(60);
    /// After how long of asking it is known which owners on other machines live.
    pub const KNOWN_AFTER: Duration = Duration::from_secs(70);

    /// For a process that makes runs in the folder `runs`. Errors: it cannot be written.
    pub fn open(runs: &Path) -> Result<Self> {
        Self::patient(runs, Self::DEAD_AFTER)
    }

    fn patient(runs: &Path, dead_after: Duration) -> Result<Self> {
        let folder = runs.join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(Error::io("cannot make folder", &folder))?;
        // Locked before it has its name: nobody takes it for that of a dead process.
        let new = tempfile::Builder::new().prefix(".new-").tempfile_in(&folder);
        let new = new.map_err(Error::io("cannot write into", &folder))?;
        new.as_file().lock().map_err(Error::io("cannot lock", new.path()))?;
        let random = new.path().file_name().unwrap_or_default().to_string_lossy().replace(".new-", "");
        let (boot, process) = (boot(), std::process::id());
        let own = format!("{OWNER}{:.8}-", boot);
        let me = Owner { owner: format!("{own}{random}"), host: host(), boot, process };
        let path = folder.join(&me.owner);
        let alive = new.persist(&path).map_err(|error| Error::io("cannot write", &path)(error.error))?;
        if !me.boot.is_empty() {
            remove_dead_owners(&folder, &own);
        }
        let (over, is_over) = channel();
        let beats = Some(std::thread::spawn(move || beat(&path, &is_over)));
        Ok(Self { folder, me, _alive: alive, seen: Mutex::default(), over: Some(over), beats, dead_after })
    }

    /// Asks for the run `run_id`. Errors: a claim cannot be written or read.
    pub fn ask(&self, run_id: &str) -> Result<Asked> {
        let mut place = self.first(run_id);
        loop {
            let owner = match read(&place)? {
                Some(owner) => owner,
                None if !self.link(&place)? => continue,
                None if self.owns(run_id)? => return Ok(Asked::Granted),
                // The chain that it is of was released meanwhile.
                None => {
                    std::fs::remove_file(&place).map_err(Error::io("cannot remove", &place))?;
                    place = self.first(run_id);
                    continue;
                }
            };
            if owner == self.me {
                return Ok(Asked::Granted);
            }
            let next = self.after(run_id, &owner);
            if !next.exists() && !self.is_dead(&owner) {
                return Ok(Asked::Owned(owner));
            }
            place = next;
        }
    }

    /// Whether the end of `owner` shows at once, since it is on this machine.
    pub fn knows_at_once(&self, owner: &Owner) -> bool {
        owner.is_of(&self.me.boot)
    }

    /// Whether the run is this process's still: one that stood still for long enough counts as dead.
    fn owns(&self, run_id: &str) -> Result<bool> {
        Ok(self.chain(run_id)?.last().is_some_and(|(_, owner)| *owner == self.me))
    }

    /// Gives the run back, if it is this process's. What cannot be removed ends with the process.
    pub fn release(&self, run_id: &str) {
        if let Ok(chain) = self.chain(run_id)
            && chain.last().is_some_and(|(_, owner)| *owner == self.me)
        {
            // From the first on: whoever claims anew meanwhile begins another chain.
            for (place, _) in chain {
                std::fs::remove_file(place).ok();
            }
        }
    }

    fn first(&self, run_id: &str) -> PathBuf {
        first(&self.folder, run_id)
    }

    fn after(&self, run_id: &str, owner: &Owner) -> PathBuf {
        after(&self.folder, run_id, owner)
    }

    fn chain(&self, run_id: &str) -> Result<Vec<(PathBuf, Owner)>> {
        chain(&self.folder, run_id)
    }

    /// Makes the claim `place`; whether nobody else was faster.
    fn link(&self, place: &Path) -> Result<bool> {
        // Whoever removes the folder of results while a grid runs does not stop it.
        std::fs::create_dir_all(&self.folder).map_err(Error::io("cannot make folder", &self.folder))?;
        let mut file =
            tempfile::NamedTempFile::new_in(&self.folder).map_err(Error::io("cannot write into", &self.folder))?;
        serde_json::to_writer(&mut file, &self.me).map_err(|error| Error::content(place, error.to_string()))?;
        match std::fs::hard_link(file.path(), place) {
            Ok(()) => Ok(true),
            // The answer of a server may be lost, and its repetition finds the link that it made.
            Err(_) if is_linked(file.path()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::io("cannot claim", place)(error)),
        }
    }

    fn is_dead(&self, owner: &Owner) -> bool {
        let path = self.folder.join(&owner.owner);
        if self.knows_at_once(owner) {
            return is_unlocked(&path);
        }
        let Ok(content) = std::fs::read(&path) else { return true };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, since) = seen.entry(owner.owner.clone()).or_insert_with(|| (content.clone(), Instant::now()));
        if *last != content {
            (*last, *since) = (content, Instant::now());
        }
        since.elapsed() > self.dead_after
    }
}

impl Drop for Claims {
    /// Its claims are those of a dead process from here on.
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(beats) = self.beats.take() {
            beats.join().ok();
        }
        std::fs::remove_file(self.folder.join(&self.me.owner)).ok();
    }
}

/// Who is making the run in the folder `runs`, for somebody who only looks: an owner on another machine counts as alive if its file was changed within
/// [`Claims::DEAD_AFTER`] by the clocks of both.
pub(super) fn maker(runs: &Path, run_id: &str) -> Option<Owner> {
    let folder = runs.join(FOLDER);
    let (_, owner) = chain(&folder, run_id).ok()?.pop()?;
    let path = folder.join(&owner.owner);
    let is_alive = match owner.is_of(&boot()) {
        true => !is_unlocked(&path),
        // A change in the future is one of another clock.
        false => {
            let changed = std::fs::metadata(&path).and_then(|file| file.modified()).ok()?;
            changed.elapsed().map_or(true, |age| age <= Claims::DEAD_AFTER)
        }
    };
    is_alive.then_some(owner)
}

fn first(folder: &Path, run_id: &str) -> PathBuf {
    folder.join(format!("{run_id}.claim"))
}

fn after(folder: &Path, run_id: &str, owner: &Owner) -> PathBuf {
    folder.join(format!("{run_id}.after-{}", owner.owner))
}

/// The claims of the run, each of one who took over from the one before.
fn chain(folder: &Path, run_id: &str) -> Result<Vec<(PathBuf, Owner)>> {
    let (mut chain, mut place) = (Vec::new(), first(folder, run_id));
    while let Some(owner) = read(&place)? {
        let next = after(folder, run_id, &owner);
        chain.push((place, owner));
        place = next;
    }
    Ok(chain)
}

/// Changes the content of `path` until the other end of `over` is gone.
fn beat(path: &Path, over: &Receiver<()>) {
    for count in 0u64.. {
        // Where it cannot be written, as on a full disk, others take over after a while.
        std::fs::write(path, count.to_string()).ok();
        if over.recv_timeout(BEAT) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// The owner that the claim names; `None` if there is no claim.
fn read(place: &Path) -> Result<Option<Owner>> {
    let owner = |json: Vec<u8>| {
        serde_json::from_slice(&json).map_err(|error| Error::content(place, format!("no claim: {error}")))
    };
    read_if_there(place)?.map(owner).transpose()
}

/// Whether no process of this machine holds the file, or there is none.
fn is_unlocked(path: &Path) -> bool {
    File::open(path).map_or_else(|error| error.kind() == ErrorKind::NotFound, |file| file.try_lock_shared().is_ok())
}

/// Files of processes of this machine that were killed. Whoever finds none of an owner's takes it for dead, as with it.
fn remove_dead_owners(folder: &Path, own: &str) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(own)) {
        if is_unlocked(&entry.path()) {
            std::fs::remove_file(entry.path()).ok();
        }
    }
}

#[cfg(unix)]
fn is_linked(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| std::os::unix::fs::MetadataExt::nlink(&there) > 1)
}

#[cfg(not(unix))]
fn is_linked(_path: &Path) -> bool {
    false
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default().trim().to_string()
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// As if it were a process of another machine.
    fn elsewhere(runs: &Path, dead_after: Duration) -> Claims {
        let mut claims = Claims::patient(runs, dead_after).unwrap();
        claims.me.boot = "another".into();
        claims
    }

    #[test]
    fn one_of_many_that_ask_at_once_gets_it_and_after_its_release_another() {
        let runs = tempfile::tempdir().unwrap();
        let granted: Vec<AtomicUsize> = (0..20).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let claims = Claims::open(runs.path()).unwrap();
                    for round in 0..50 {
                        for (run, granted) in granted.iter().enumerate() {
                            if claims.ask(&format!("run-{run}")).unwrap() == Asked::Granted {
                                assert_eq!(granted.fetch_add(1, Ordering::SeqCst), 0, "run {run} in round {round}");
                                granted.fetch_sub(1, Ordering::SeqCst);
                                claims.release(&format!("run-{run}"));
                            }
                        }
                    }
                });
            }
        });
        let left: Vec<_> = std::fs::read_dir(runs.path().join(".claims")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn those_of_a_dead_process_go_to_one_of_the_living_however_often_that_happens() {
        let runs = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            let dead = Claims::open(runs.path()).unwrap();
            assert_eq!(dead.ask("run").unwrap(), Asked::Granted);
            let other = Claims::open(runs.path()).unwrap();
            assert_eq!(other.ask("run").unwrap(), Asked::Owned(dead.me.clone()));
            assert!(dead.owns("run").unwrap());
        }
        let living: Vec<Claims> = (0..3).map(|_| Claims::open(runs.path()).unwrap()).collect();
        let granted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for claims in &living {
                scope.spawn(|| {
                    granted.fetch_add((claims.ask("run").unwrap() == Asked::Granted).into(), Ordering::SeqCst)
                });
            }
        });
        assert_eq!((granted.into_inner(), living.iter().filter(|claims| claims.owns("run").unwrap()).count()), (1, 1));
    }

    #[test]
    fn whoever_only_looks_sees_who_makes_a_run_while_that_lives() {
        let runs = tempfile::tempdir().unwrap();
        assert_eq!(maker(runs.path(), "run"), None);
        for claims in [Claims::open(runs.path()).unwrap(), elsewhere(runs.path(), Duration::from_secs(60))] {
            assert_eq!(claims.ask("run").unwrap(), Asked::Granted);
            assert_eq!(maker(runs.path(), "run"), Some(claims.me.clone()));
            drop(claims);
            assert_eq!(maker(runs.path(), "run"), None);
        }
        let silent = elsewhere(runs.path(), Duration::from_secs(60));
        assert_eq!(silent.ask("run").unwrap(), Asked::Granted);
        let file = File::options().write(true).open(runs.path().join(".claims").join(&silent.me.owner)).unwrap();
        file.set_modified(std::time::SystemTime::now() - 2 * Claims::DEAD_AFTER).unwrap();
        assert_eq!(maker(runs.path(), "run"), None);
    }

    #[test]
    fn an_owner_elsewhere_is_dead_when_it_has_shown_no_sign_of_life_for_long_enough_and_learns_of_it() {
        let runs = tempfile::tempdir().unwrap();
        let stopped = elsewhere(runs.path(), Duration::from_secs(60));
        assert_eq!(stopped.ask("run").unwrap(), Asked::Granted);
        let other = Claims::patient(runs.path(), Duration::from_millis(300)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        assert_eq!(other.ask("run").unwrap(), Asked::Owned(stopped.me.clone()));
        while other.ask("run").unwrap() != Asked::Granted {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!stopped.owns("run").unwrap());
        // What is not its own it does not give back.
        stopped.release("run");
        assert!(other.owns("run").unwrap());
        other.release("run");
        assert_eq!(stopped.ask("run").unwrap(), Asked::Granted);
    }
}
