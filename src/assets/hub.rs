//! Files from the Hugging Face Hub, in the cache that Python's `huggingface_hub` uses too.
//!
//! The crate `hf-hub` says which commit a branch or tag is, and reads the Hub's refusals. What it does not do (1.0), or
//! not safely enough for weights that decide about published numbers, is done here:
//!
//! - `HF_HUB_OFFLINE` is honoured (`settings`), and what is in the cache is used without setting up a connection;
//! - a broken download goes on with a range request, and what arrived is compared with the SHA-256 that the Hub
//!   announced, before it gets its name (`transfer`). `hf-hub` stores the body of any answer, an error page too;
//! - names that a server sends are not used as paths before they were looked at (`name`, `transfer`);
//! - links and refs are replaced in one step, so that processes may share a cache (`cache`).
//!
//! Content that the Hub keeps in Xet comes through its HTTP bridge, which knows ranges: there is one way to download.

mod cache;
mod expand;
mod failure;
mod name;
mod settings;
mod transfer;

pub use name::{HUB_PREFIX, HubFile, RepoKind};
pub use settings::{HubSettings, Token};

use crate::disk::sha256;
use crate::error::{Error, Result};
use cache::{Cached, RepoCache, announced_sha256};
use failure::{Failure, text_of};
use hf_hub::HFClientSync;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use transfer::{Announced, Transfer};

/// How the harness names itself to servers.
const USER_AGENT: &str = concat!("metaaug/", env!("CARGO_PKG_VERSION"));
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
    /// The Hub does not answer: `commit`, which the revision was last seen at, is used.
    Unreachable { file: &'a HubFile, commit: &'a str },
}

/// Watches downloads.
pub type HubObserver = Arc<dyn Fn(HubEvent) + Send + Sync>;

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
        let bytes = std::fs::read(&self.path).map_err(Error::io("cannot read", &self.path))?;
        let sum = sha256(&[&bytes]);
        match &self.sha256 {
            Some(announced) if *announced != sum => Err(Error::Hub {
                file: self.file.to_string(),
                problem: format!(
                    "{} is damaged: its SHA-256 is {sum}, not {announced}; remove it to download it again",
                    std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone()).display()
                ),
            }),
            _ => Ok((bytes, sum)),
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
}

impl Hub {
    pub fn new(settings: HubSettings, observe: HubObserver) -> Self {
        Self { settings, observe, clients: OnceLock::new() }
    }

    /// As the environment says, watched by nobody.
    pub fn silent() -> Self {
        Self::new(HubSettings::from_env(), Arc::new(|_| ()))
    }

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
        self.obtain(file).map_err(|failure| failure.error(file, &self.settings))
    }

    /// Like [`fetch`](Self::fetch), but `None` where the repository has no such file.
    pub fn fetch_if_there(&self, file: &HubFile) -> Result<Option<Fetched>> {
        match self.obtain(file) {
            Ok(fetched) => Ok(Some(fetched)),
            Err(failure) if failure.is_missing_file() => Ok(None),
            Err(failure) => Err(failure.error(file, &self.settings)),
        }
    }

    fn obtain(&self, file: &HubFile) -> Result<Fetched, Failure> {
        let cache = RepoCache::new(&self.settings.cache, file);
        let cached = |commit: &str| match cache.find(&file.at(commit)) {
            Some(Cached::Missing) => Err(missing_file()),
            Some(Cached::At(path)) => Ok(Some(Fetched::new(file.at(commit), path))),
            None => Ok(None),
        };
        let last_seen = || file.commit().map(str::to_string).or_else(|| cache.commit_of(file.revision()));
        if self.settings.offline {
            let found = last_seen().map(|commit| cached(&commit)).transpose()?.flatten();
            return found.ok_or(Failure::Offline);
        }
        let commit = match file.commit() {
            Some(commit) => commit.to_string(),
            None => match self.commit(file) {
                Err(failure) if failure.is_transient() => {
                    let Some(commit) = last_seen() else { return Err(failure) };
                    let Some(fetched) = cached(&commit)? else { return Err(failure) };
                    (self.observe)(HubEvent::Unreachable { file, commit: &commit });
                    return Ok(fetched);
                }
                commit => commit?,
            },
        };
        let fetched = match cached(&commit)? {
            Some(fetched) => fetched,
            None => self.download(&file.at(&commit), &cache)?,
        };
        cache.remember_commit(file.revision(), &commit).map_err(Failure::Local)?;
        Ok(fetched)
    }

    /// The commit that the revision of `file` is now.
    fn commit(&self, file: &HubFile) -> Result<String, Failure> {
        let (client, _) = self.clients()?;
        let (owner, name) = file.owner_and_name();
        let (revision, expand) = (file.revision(), vec!["sha".to_string()]);
        let sha = match file.kind() {
            RepoKind::Model => client.model(owner, name).info().revision(revision).expand(expand).send()?.sha,
            RepoKind::Dataset => client.dataset(owner, name).info().revision(revision).expand(expand).send()?.sha,
        };
        sha.filter(|sha| name::is_commit(sha)).ok_or_else(|| Failure::Malformed(format!("{revision} is no commit")))
    }

    /// Downloads `file`, whose revision is a commit, into the cache.
    fn download(&self, file: &HubFile, cache: &RepoCache) -> Result<Fetched, Failure> {
        let (_, transfer) = self.clients()?;
        let (url, announced) = transfer.describe(&self.settings, file).inspect_err(|failure| {
            if failure.is_missing_from(file.revision()) {
                // Only spares a request.
                let _ = cache.remember_missing(file);
            }
        })?;
        if announced.commit != file.revision() {
            return Err(Failure::Malformed(format!("commit {} came for {}", announced.commit, file.revision())));
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

/// What the Hub would say, from the cache.
fn missing_file() -> Failure {
    Failure::Refused { status: 404, code: "EntryNotFound".to_string(), message: String::new(), commit: None }
}
