//! Which process makes which run, where several work on one folder of results.
//!
//! A claim is a file that names its owner, a process, and is made with a hard link: of several that ask at once, on whatever machines that
//! share the folder, one gets it. `runs/.claims/RUN.claim` is the first; the claim of one who takes over from a dead owner's `CLAIM` is
//! `RUN.after-CLAIM`, so that of several who do so, too, one gets it. The last of the chain owns the run. No two claims have one name: one that
//! was removed never leads to another's again.
//!
//! An owner's file, `.claims/OWNER`, is locked for as long as the process lives, which the system tells to others on its machine, and its
//! content changes every few seconds, which others see. Clocks are not compared: an owner on another machine is dead for those who have seen
//! no change for [`Claims::DEAD_AFTER`].
//!
//! What is relied on, of NFS as of any file system:
//! - `link` makes a name or fails, for all clients; that its reply may be lost, and its repetition then fails, shows in the number of links.
//! - A file that is opened has the content that was there when its writer closed it. That a name is *not* there a client may remember for
//!   as long as it takes the folder for unchanged, and learns otherwise when it makes a file there (`look_anew`).
//! - The folder's attributes are remembered for no longer than [`Claims::DEAD_AFTER`] (`acdirmax`, by default 60 seconds).
//! - From the look whether a run is still its own until it is stored and given back, no process takes as long as making the run takes another, or
//!   stands still for [`Claims::DEAD_AFTER`]. One that does may store a run that another has made meanwhile: each is whole, and the later one stays.
//!
//! `model` tries every order of these steps, with processes that die, stand still, and remember wrongly.

mod files;
#[cfg(test)]
mod model;

use crate::error::{Error, Result};
use files::{Files, Folder, is_unlocked};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

pub(super) use files::look_anew;

/// Between two changes of an owner's file.
const BEAT: Duration = Duration::from_secs(5);
/// Of the claims, within that of the runs.
const FOLDER: &str = ".claims";
/// Begins the name of an owner's file.
const OWNER: &str = "owner-";

/// Who owns a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The name of its file.
    owner: String,
    pub host: String,
    /// Of the machine since it was started; empty where the system does not tell.
    boot: String,
    pub process: u32,
    /// Which of its claims this is.
    #[serde(default)]
    claim: u64,
}

impl Owner {
    /// Whether it is on the machine that was started as `boot` says, where its end shows at once.
    fn is_of(&self, boot: &str) -> bool {
        !self.boot.is_empty() && self.boot == boot
    }

    fn is_same_process(&self, other: &Owner) -> bool {
        self.owner == other.owner
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
    folder: Folder,
    me: Owner,
    /// How many claims it has made, or tried to.
    count: AtomicU64,
    /// Locked for as long as this lives.
    _alive: File,
    /// Ends the beats when it goes.
    over: Option<Sender<()>>,
    beats: Option<JoinHandle<()>>,
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
        let me = Owner { owner: format!("{own}{random}"), host: host(), boot, process, claim: 0 };
        let path = folder.join(&me.owner);
        let alive = new.persist(&path).map_err(|error| Error::io("cannot write", &path)(error.error))?;
        if !me.boot.is_empty() {
            remove_dead_owners(&folder, &own);
        }
        let (over, is_over) = channel();
        let beats = Some(std::thread::spawn(move || beat(&path, &is_over)));
        let folder = Folder::new(folder, me.boot.clone(), dead_after);
        Ok(Self { folder, me, count: AtomicU64::new(0), _alive: alive, over: Some(over), beats })
    }

    /// Asks for the run `run_id`, to make it. Errors: a claim cannot be written or read.
    pub fn ask(&self, run_id: &str) -> Result<Asked> {
        ask(&self.folder, (&self.me, &self.count), run_id, Dead::AreSucceeded)
    }

    /// Asks whether the run `run_id`, which it has made, is still its own to store.
    pub fn ask_again(&self, run_id: &str) -> Result<Asked> {
        ask(&self.folder, (&self.me, &self.count), run_id, Dead::Remain)
    }

    /// Whether the end of `owner` shows at once, since it is on this machine.
    pub fn knows_at_once(&self, owner: &Owner) -> bool {
        owner.is_of(&self.me.boot)
    }

    /// Gives the run back, if it is this process's. What cannot be removed ends with the process.
    pub fn release(&self, run_id: &str) {
        release(&self.folder, &self.me, run_id).ok();
    }
}

impl Drop for Claims {
    /// Its claims are those of a dead process from here on.
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(beats) = self.beats.take() {
            beats.join().ok();
        }
        std::fs::remove_file(self.folder.path(&self.me.owner)).ok();
    }
}

/// What becomes of a dead owner's run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dead {
    AreSucceeded,
    /// Whoever comes to store what it has made before does not take over: the other may only seem dead, and be about to store.
    Remain,
}

/// Asks for a run for the process `me`, which has made `count` claims.
fn ask(files: &impl Files, (me, count): (&Owner, &AtomicU64), run_id: &str, dead: Dead) -> Result<Asked> {
    loop {
        let place = match chain(files, run_id)?.pop() {
            None => first(run_id),
            Some((_, last)) if last.is_same_process(me) => {
                // One that stood still for long enough counts as dead, and may have a successor of whom its machine has not heard.
                files.look_anew()?;
                match files.read(&after(run_id, &last))? {
                    None => return Ok(Asked::Granted),
                    Some(_) => continue,
                }
            }
            Some((_, last)) if dead == Dead::Remain || !files.is_dead(&last)? => return Ok(Asked::Owned(last)),
            Some((_, last)) => after(run_id, &last),
        };
        let claim = Owner { claim: count.fetch_add(1, Ordering::Relaxed), ..me.clone() };
        let json = serde_json::to_vec(&claim).map_err(|error| Error::content(place.as_str(), error.to_string()))?;
        // Where the chain that it ends was released meanwhile, it leads nowhere.
        if files.link(&place, &json)? && !chain(files, run_id)?.iter().any(|(_, owner)| *owner == claim) {
            files.remove(&place)?;
        }
    }
}

/// Gives a run back if it is that of the process `me`.
fn release(files: &impl Files, me: &Owner, run_id: &str) -> Result<()> {
    let chain = chain(files, run_id)?;
    if chain.last().is_some_and(|(_, last)| last.is_same_process(me)) {
        // From the first on: whoever claims anew meanwhile begins another chain.
        for (place, _) in chain {
            files.remove(&place)?;
        }
    }
    Ok(())
}

/// Who is making the run in the folder `runs`, for somebody who only looks: an owner on another machine counts as alive if its file was changed within
/// [`Claims::DEAD_AFTER`] by the clocks of both.
pub(super) fn maker(runs: &Path, run_id: &str) -> Option<Owner> {
    let boot = boot();
    let folder = Folder::new(runs.join(FOLDER), boot.clone(), Claims::DEAD_AFTER);
    let (_, owner) = chain(&folder, run_id).ok()?.pop()?;
    let path = folder.path(&owner.owner);
    let is_alive = match owner.is_of(&boot) {
        true => !is_unlocked(&path),
        // A change in the future is one of another clock.
        false => {
            let changed = std::fs::metadata(&path).and_then(|file| file.modified()).ok()?;
            changed.elapsed().map_or(true, |age| age <= Claims::DEAD_AFTER)
        }
    };
    is_alive.then_some(owner)
}

fn first(run_id: &str) -> String {
    format!("{run_id}.claim")
}

fn after(run_id: &str, Owner { owner, claim, .. }: &Owner) -> String {
    format!("{run_id}.after-{owner}-{claim}")
}

/// The claims of the run, each of one who took over from the one before.
fn chain(files: &impl Files, run_id: &str) -> Result<Vec<(String, Owner)>> {
    let (mut chain, mut place) = (Vec::new(), first(run_id));
    while let Some(json) = files.read(&place)? {
        let owner: Owner = serde_json::from_slice(&json)
            .map_err(|error| Error::content(place.as_str(), format!("no claim: {error}")))?;
        let next = after(run_id, &owner);
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

/// Files of processes of this machine that were killed. Whoever finds none of an owner's takes it for dead, as with it.
fn remove_dead_owners(folder: &Path, own: &str) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(own)) {
        if is_unlocked(&entry.path()) {
            std::fs::remove_file(entry.path()).ok();
        }
    }
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
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    impl Claims {
        /// Whether the run is this process's.
        fn owns(&self, run_id: &str) -> bool {
            let last = chain(&self.folder, run_id).unwrap().pop();
            last.is_some_and(|(_, owner)| owner.is_same_process(&self.me))
        }
    }

    /// Who `claims` are of.
    fn owner(asked: Asked) -> Option<String> {
        match asked {
            Asked::Granted => None,
            Asked::Owned(owner) => Some(owner.owner),
        }
    }

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
            assert_eq!(owner(other.ask("run").unwrap()), Some(dead.me.owner.clone()));
            assert!(dead.owns("run"));
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
        assert_eq!((granted.into_inner(), living.iter().filter(|claims| claims.owns("run")).count()), (1, 1));
    }

    #[test]
    fn whoever_only_looks_sees_who_makes_a_run_while_that_lives() {
        let runs = tempfile::tempdir().unwrap();
        assert_eq!(maker(runs.path(), "run"), None);
        for claims in [Claims::open(runs.path()).unwrap(), elsewhere(runs.path(), Duration::from_secs(60))] {
            assert_eq!(claims.ask("run").unwrap(), Asked::Granted);
            assert_eq!(maker(runs.path(), "run").unwrap().owner, claims.me.owner);
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
        assert_eq!(owner(other.ask("run").unwrap()), Some(stopped.me.owner.clone()));
        while other.ask("run").unwrap() != Asked::Granted {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
        // It asks again before it stores what it has made.
        assert_eq!(owner(stopped.ask_again("run").unwrap()), Some(other.me.owner.clone()));
        // What is not its own it does not give back.
        stopped.release("run");
        assert!(other.owns("run"));
        other.release("run");
        assert_eq!(stopped.ask("run").unwrap(), Asked::Granted);
    }
}
