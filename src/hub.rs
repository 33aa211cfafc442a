//! Files from the Hugging Face Hub, in the cache that Python's `huggingface_hub` uses too.
//!
//! The crate `hf-hub` says which commit a branch or tag is, and reads the Hub's refusals. What it does not do (1.0), or
//! not safely enough for weights that decide about published numbers, is done here:
//!
//! - `HF_HUB_OFFLINE` is honoured (`settings`), and what is in the cache is used without setting up a connection;
//! - a broken download goes on with a range request, and what arrived is compared with the SHA-256 that the Hub
//!   announced, before it gets its name (`transfer`). `hf-hub` stores the body of any answer, an error page too;
//! - names that a server sends are not used as paths before they were looked at (`name`, `transfer`);
//! - links and refs are replaced in one step, so that processes may share a cache (`cache`);
//! - what a repository holds is listed once per commit, and the list is kept beside the files.
//!
//! Content that the Hub keeps in Xet comes through its HTTP bridge, which knows ranges: there is one way to download.

mod cache;
mod expand;
mod failure;
mod name;
mod settings;
mod transfer;

pub use name::{HUB_PREFIX, HubFile, HubRepo, RepoKind};
pub use settings::{HubSettings, Token};

use crate::disk::foreign::{LARGEST_WEIGHTS, read};
use crate::disk::sha256;
use crate::error::{Error, Result};
use crate::http::{USER_AGENT, text_of};
use cache::{Cached, RepoCache, announced_sha256};
use failure::Failure;
use hf_hub::HFClientSync;
use hf_hub::repository::RepoTreeEntry;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use transfer::{Announced, Transfer, address_of, sha256_of};

/// How often `hf-hub` repeats a request that found nobody, and how long it waits for a connection.
const RETRIES: usize = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What happens while a file is fetched.
#[derive(Clone, Copy, Debug)]
pub enum HubEvent<'a> {
    /// Another process downloads the same content.
    Waiting { file: &'a HubFile },
    /// There are `have` bytes of the file; at first those of an earlier attempt.
    Received { file: &'a HubFile, have: u64, bytes: Option<u64> },
    /// The file is complete and in the cache.
    Stored { file: &'a HubFile, bytes: u64 },
    /// So much of a data set is about to be downloaded.
    Lacking { repo: &'a HubRepo, files: usize, bytes: u64 },
    /// The Hub does not answer: `commit`, which the revision was last seen at, is used.
    Unreachable { repo: &'a HubRepo, commit: &'a str },
}

/// Watches downloads.
pub type HubObserver = Arc<dyn Fn(HubEvent) + Send + Sync>;

/// A file as its repository lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubEntry {
    pub path: String,
    pub bytes: u64,
}

/// A file in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// With the commit as its revision.
    pub file: HubFile,
    pub path: PathBuf,
    /// The SHA-256 that the Hub announced, in lower-case hexadecimal; it does for large files.
    pub sha256: Option<String>,
}

impl Fetched {
    fn new(file: HubFile, path: PathBuf) -> Self {
        Self { file, sha256: announced_sha256(&path), path }
    }

    /// The content and its SHA-256.
    ///
    /// Errors: the content is not what the Hub announced when it was downloaded, by whatever program.
    pub fn read(&self) -> Result<(Vec<u8>, String)> {
        let bytes = read("cannot read", &self.path, LARGEST_WEIGHTS)?;
        let sum = self.checked(sha256(&[&bytes]))?;
        Ok((bytes, sum))
    }

    /// The SHA-256 of the content, which may be larger than the memory. Errors: as of [`Self::read`].
    pub fn content_sha256(&self) -> Result<String> {
        self.checked(sha256_of(&self.path).map_err(Error::io("cannot read", &self.path))?)
    }

    fn checked(&self, sum: String) -> Result<String> {
        match &self.sha256 {
            Some(announced) if *announced != sum => Err(Error::Hub {
                name: self.file.to_string(),
                problem: format!(
                    "{} is damaged: its SHA-256 is {sum}, not {announced}; remove it to download it again",
                    std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone()).display()
                ),
            }),
            _ => Ok(sum),
        }
    }

    /// The content of a text file.
    pub fn read_to_string(&self) -> Result<String> {
        String::from_utf8(self.read()?.0).map_err(|_| Error::content(&self.path, "is not UTF-8 text"))
    }
}

/// The Hub as seen through its cache.
pub struct Hub {
    settings: HubSettings,
    observe: HubObserver,
    clients: OnceLock<(HFClientSync, Transfer)>,
    /// What revisions were found to be: each is asked for once, so that all of a command sees one commit of a branch.
    commits: Mutex<HashMap<HubRepo, String>>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Hub {
    /// Of `settings`; `observe` is told of downloads. Nothing is sent before the first file is asked for.
    pub fn new(settings: HubSettings, observe: HubObserver) -> Self {
        Self { settings, observe, clients: OnceLock::new(), commits: Mutex::default() }
    }

    /// As the environment says, watched by nobody.
    pub fn silent() -> Self {
        Self::new(HubSettings::from_env(), Arc::new(|_| ()))
    }

    /// Where the Hub is, and who asks.
    pub fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// The file in the cache, downloaded if it is not there.
    ///
    /// A file at a commit that is in the cache needs no network; that of a branch needs it to learn the commit, unless
    /// `HF_HUB_OFFLINE` is set or nobody answers: then the commit counts that the branch was last seen at.
    ///
    /// Errors: [`Error::Hub`] with what to do.
    pub fn fetch(&self, file: &HubFile) -> Result<Fetched> {
        self.obtain(file).map_err(|failure| self.error(failure, file))
    }

    /// Like [`fetch`](Self::fetch), but `None` where the repository has no such file.
    pub fn fetch_if_there(&self, file: &HubFile) -> Result<Option<Fetched>> {
        match self.obtain(file) {
            Ok(fetched) => Ok(Some(fetched)),
            Err(failure) if failure.is_missing_file() => Ok(None),
            Err(failure) => Err(self.error(failure, file)),
        }
    }

    /// The files of `entries`, which the listed `repo` has, in their order; what is not in the cache is announced at once, then
    /// downloaded. At the end the branches that were found to be at its commit are so without a network, too.
    pub fn fetch_listed(&self, repo: &HubRepo, entries: &[HubEntry]) -> Result<Vec<Fetched>> {
        let (files, bytes) = self.lacking(repo, entries)?;
        if files > 0 && !self.settings.offline {
            (self.observe)(HubEvent::Lacking { repo, files, bytes });
        }
        let fetched =
            entries.iter().map(|entry| self.fetch(&file_in(repo, &entry.path)?)).collect::<Result<Vec<_>>>()?;
        let cache = RepoCache::new(&self.settings.cache, repo);
        let is_here = |(branch, commit): &(&HubRepo, &String)| branch.at(commit) == *repo;
        for (branch, commit) in self.commits().iter().filter(is_here) {
            cache.remember_commit(branch.revision(), commit)?;
        }
        Ok(fetched)
    }

    /// How many of `entries` are not in the cache, and their bytes; `repo` is at a commit.
    pub fn lacking(&self, repo: &HubRepo, entries: &[HubEntry]) -> Result<(usize, u64)> {
        entries.iter().try_fold((0, 0), |(files, bytes), entry| {
            Ok(match self.in_cache(&file_in(repo, &entry.path)?) {
                Some(_) => (files, bytes),
                None => (files + 1, bytes + entry.bytes),
            })
        })
    }

    /// Where `file`, whose revision is a commit, lies in the cache, if it does.
    pub fn in_cache(&self, file: &HubFile) -> Option<PathBuf> {
        match RepoCache::new(&self.settings.cache, file.repo()).find(file)? {
            Cached::At(path) => Some(path),
            Cached::Missing => None,
        }
    }

    /// The same repository at the commit that its revision is now.
    pub fn resolve(&self, repo: &HubRepo) -> Result<HubRepo> {
        let commit = self.commit(repo).map_err(|failure| failure.error(repo, None, &self.settings))?;
        Ok(repo.at(&commit))
    }

    /// Has `repo` count as at `commit`, which another process found it to be.
    pub fn pin(&self, repo: &HubRepo, commit: &str) {
        self.commits().insert(repo.clone(), commit.to_string());
    }

    /// The files of `repo`, which is at a commit: from the cache if they were listed before, since they cannot change.
    pub fn list(&self, repo: &HubRepo) -> Result<Vec<HubEntry>> {
        self.listing(repo).map_err(|failure| failure.error(repo, None, &self.settings))
    }

    /// The last bytes of a file that is not in the cache, `bytes` long, from `from` on; its revision is a commit.
    pub fn tail(&self, file: &HubFile, from: u64, bytes: u64) -> Result<Vec<u8>> {
        let tail = || {
            if self.settings.offline {
                return Err(Failure::Offline);
            }
            self.clients()?.1.tail(&address_of(&self.settings, file)?, from, bytes)
        };
        tail().map_err(|failure| self.error(failure, file))
    }

    fn error(&self, failure: Failure, file: &HubFile) -> Error {
        failure.error(file.repo(), Some(file.file()), &self.settings)
    }

    /// A map is whole whatever panicked.
    fn commits(&self) -> MutexGuard<'_, HashMap<HubRepo, String>> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn obtain(&self, file: &HubFile) -> Result<Fetched, Failure> {
        let cache = RepoCache::new(&self.settings.cache, file.repo());
        let commit = self.commit(file.repo())?;
        let file_at = file.at(&commit);
        let fetched = match cache.find(&file_at) {
            Some(Cached::Missing) => return Err(missing_file()),
            Some(Cached::At(path)) => Fetched::new(file_at, path),
            None if self.settings.offline => return Err(Failure::Offline),
            None => self.download(&file_at, &cache)?,
        };
        cache.remember_commit(file.repo().revision(), &commit).map_err(Failure::Local)?;
        Ok(fetched)
    }

    /// The commit that the revision of `repo` is; where nobody may or can be asked, that which it was last seen at.
    fn commit(&self, repo: &HubRepo) -> Result<String, Failure> {
        if let Some(commit) = repo.commit() {
            return Ok(commit.to_string());
        }
        // Held meanwhile: others who want to know it wait for the answer.
        let mut commits = self.commits();
        if let Some(commit) = commits.get(repo) {
            return Ok(commit.clone());
        }
        let last_seen = || RepoCache::new(&self.settings.cache, repo).commit_of(repo.revision());
        let commit = match self.settings.offline {
            true => last_seen().ok_or(Failure::Offline)?,
            false => match self.ask_for_commit(repo) {
                Err(failure) if failure.is_transient() => {
                    let commit = last_seen().ok_or(failure)?;
                    (self.observe)(HubEvent::Unreachable { repo, commit: &commit });
                    commit
                }
                commit => commit?,
            },
        };
        commits.insert(repo.clone(), commit.clone());
        Ok(commit)
    }

    fn ask_for_commit(&self, repo: &HubRepo) -> Result<String, Failure> {
        let (client, _) = self.clients()?;
        let (owner, name) = repo.owner_and_name();
        let (revision, expand) = (repo.revision(), vec!["sha".to_string()]);
        let sha = match repo.kind() {
            RepoKind::Model => client.model(owner, name).info().revision(revision).expand(expand).send()?.sha,
            RepoKind::Dataset => client.dataset(owner, name).info().revision(revision).expand(expand).send()?.sha,
        };
        sha.filter(|sha| name::is_commit(sha)).ok_or_else(|| Failure::Malformed(format!("{revision} is no commit")))
    }

    fn listing(&self, repo: &HubRepo) -> Result<Vec<HubEntry>, Failure> {
        let cache = RepoCache::new(&self.settings.cache, repo);
        if let Some(entries) = cache.listing(repo.revision()) {
            return Ok(entries);
        }
        if self.settings.offline {
            return Err(Failure::Offline);
        }
        let (client, _) = self.clients()?;
        let ((owner, name), commit) = (repo.owner_and_name(), repo.revision());
        let tree = match repo.kind() {
            RepoKind::Model => client.model(owner, name).list_tree().revision(commit).recursive(true).send()?,
            RepoKind::Dataset => client.dataset(owner, name).list_tree().revision(commit).recursive(true).send()?,
        };
        let file = |entry| match entry {
            // A name that leads elsewhere is nobody's file.
            RepoTreeEntry::File { path, size, .. } if repo.file(&path).is_ok() => Some(HubEntry { path, bytes: size }),
            _ => None,
        };
        let mut entries: Vec<HubEntry> = tree.into_iter().filter_map(file).collect();
        entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        cache.remember_listing(commit, &entries).map_err(Failure::Local)?;
        Ok(entries)
    }

    /// Downloads `file`, whose revision is a commit, into the cache.
    fn download(&self, file: &HubFile, cache: &RepoCache) -> Result<Fetched, Failure> {
        let (_, transfer) = self.clients()?;
        let (url, announced) = transfer.describe(&self.settings, file).inspect_err(|failure| {
            if failure.is_missing_from(file.repo().revision()) {
                // Only spares a request.
                let _ = cache.remember_missing(file);
            }
        })?;
        let commit = file.repo().revision();
        if announced.commit != commit {
            return Err(Failure::Malformed(format!("commit {} came for {commit}", announced.commit)));
        }
        let lock =
            cache.lock(&announced.etag, || (self.observe)(HubEvent::Waiting { file })).map_err(Failure::Local)?;
        let blob = cache.blob(&announced.etag);
        // Another process may have brought it while this one waited.
        if !blob.exists() {
            let partial = cache.incomplete(&announced.etag, &lock);
            self.bring(transfer, (file, &url, &announced), &partial, &blob)?;
        }
        Ok(Fetched::new(file.clone(), cache.point(file, &announced.etag).map_err(Failure::Local)?))
    }

    /// Completes `partial`, checks it and makes it the blob.
    fn bring(
        &self,
        transfer: &Transfer,
        (file, url, announced): (&HubFile, &reqwest::Url, &Announced),
        partial: &Path,
        blob: &Path,
    ) -> Result<(), Failure> {
        let local = |action, path| move |error| Failure::Local(Error::io(action, path)(error));
        let folder = blob.parent().unwrap_or(blob);
        std::fs::create_dir_all(folder).map_err(local("cannot make folder", folder))?;
        let mut received = 0;
        transfer.complete(url, announced, partial, &mut |have| {
            received = have;
            (self.observe)(HubEvent::Received { file, have, bytes: announced.bytes });
        })?;
        std::fs::rename(partial, blob).map_err(local("cannot write", blob))?;
        (self.observe)(HubEvent::Stored { file, bytes: received });
        Ok(())
    }

    /// Made when they are first needed: most grids need none.
    fn clients(&self) -> Result<&(HFClientSync, Transfer), Failure> {
        if let Some(clients) = self.clients.get() {
            return Ok(clients);
        }
        let http = reqwest::Client::builder().user_agent(USER_AGENT).connect_timeout(CONNECT_TIMEOUT);
        let http = http.timeout(CONNECT_TIMEOUT * 3).build().map_err(|error| Failure::Unreachable(text_of(error)))?;
        let mut builder = hf_hub::HFClient::builder()
            .client(http)
            .user_agent(USER_AGENT)
            .endpoint(&self.settings.endpoint)
            .cache_dir(&self.settings.cache)
            .retry_max_attempts(RETRIES);
        if let Some(token) = &self.settings.token {
            builder = builder.token(token.secret());
        }
        let clients = (builder.build_sync()?, Transfer::new(&self.settings)?);
        Ok(self.clients.get_or_init(|| clients))
    }
}

/// The file of a listed repository. Errors: a list in the cache that nobody wrote.
pub fn file_in(repo: &HubRepo, path: &str) -> Result<HubFile> {
    repo.file(path).map_err(|problem| Error::Hub { name: repo.to_string(), problem })
}

/// What the Hub would say, from the cache.
fn missing_file() -> Failure {
    Failure::Refused { status: 404, code: "EntryNotFound".to_string(), message: String::new(), commit: None }
}
