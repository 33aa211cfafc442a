//! Names of repositories and files on the Hub, as a grid writes them.

use std::fmt;
use std::str::FromStr;

/// How a name on the Hub begins.
pub const HUB_PREFIX: &str = "hub:";
/// The revision that is meant where none is given.
const DEFAULT_REVISION: &str = "main";
/// The file that describes a network's preprocessing, beside its weights.
const CONFIG: &str = "config.json";

/// The two kinds of repositories that the harness reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RepoKind {
    Model,
    Dataset,
}

impl RepoKind {
    /// As in the Hub's API, and in the names of the cache's folders.
    pub(super) fn plural(self) -> &'static str {
        match self {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        }
    }

    /// What the addresses of files and the names of [`HubRepo`] have before the repository.
    pub fn prefix(self) -> &'static str {
        match self {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        }
    }
}

/// A repository at one revision: `hub:OWNER/NAME@REVISION`, or `hub:datasets/OWNER/NAME@REVISION`.
///
/// Every part is a relative path without `..`: whatever is made of it stays inside the cache. A `/` in a revision is
/// written `%2F`, as in the Hub's addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HubRepo {
    kind: RepoKind,
    name: String,
    revision: String,
}

impl HubRepo {
    /// Errors: the reason why one of the parts cannot be a name on the Hub.
    pub fn new(kind: RepoKind, name: &str, revision: &str) -> Result<Self, String> {
        let parts = name.split_once('/').filter(|(_, name)| !name.contains('/'));
        if parts.is_none_or(|(owner, name)| !is_repo_part(owner) || !is_repo_part(name)) {
            return Err(format!("{name:?} is not the OWNER/NAME of a repository"));
        }
        match is_inner_path(revision) {
            true => Ok(Self { kind, name: name.to_string(), revision: revision.to_string() }),
            false => Err(format!("{revision:?} cannot be a revision on the Hub")),
        }
    }

    /// The repository that `text`, `OWNER/NAME[@REVISION][/REST]`, begins with, and the rest.
    ///
    /// Errors: the reason why it is none; `None` if `text` is not of that form.
    pub fn split(kind: RepoKind, text: &str) -> Option<Result<(Self, Option<&str>), String>> {
        let (owner, rest) = text.split_once('/')?;
        let (name, rest) = match rest.split_once('/') {
            Some((name, rest)) => (name, Some(rest)),
            None => (rest, None),
        };
        let (name, revision) = name.split_once('@').unwrap_or((name, DEFAULT_REVISION));
        let repo = Self::new(kind, &format!("{owner}/{name}"), &revision.replace("%2F", "/"));
        Some(repo.map(|repo| (repo, rest)))
    }

    pub fn kind(&self) -> RepoKind {
        self.kind
    }

    /// `OWNER/NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Owner and name.
    pub(super) fn owner_and_name(&self) -> (&str, &str) {
        hf_hub::split_id(&self.name)
    }

    /// A branch, a tag or a commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The revision as it is written in a name.
    pub fn written_revision(&self) -> String {
        self.revision.replace('/', "%2F")
    }

    /// The revision, if it is a commit: nothing that it names can change.
    pub fn commit(&self) -> Option<&str> {
        is_commit(&self.revision).then_some(&self.revision)
    }

    /// The same repository at `commit`.
    pub fn at(&self, commit: &str) -> Self {
        Self { revision: commit.to_string(), ..self.clone() }
    }

    /// The file at `path` in it. Errors: a path that cannot be one on the Hub.
    pub fn file(&self, path: &str) -> Result<HubFile, String> {
        match is_inner_path(path) {
            true => Ok(HubFile { repo: self.clone(), file: path.to_string() }),
            false => Err(format!("{path:?} cannot be a file name on the Hub")),
        }
    }
}

impl fmt::Display for HubRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HUB_PREFIX}{}{}@{}", self.kind.prefix(), self.name, self.written_revision())
    }
}

/// One file at one revision: `hub:OWNER/NAME[@REVISION]/FILE`, or `hub:datasets/OWNER/NAME[@REVISION]/FILE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HubFile {
    repo: HubRepo,
    file: String,
}

impl HubFile {
    /// The repository that holds the file.
    pub fn repo(&self) -> &HubRepo {
        &self.repo
    }

    /// Path of the file in its repository.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The same file at `commit`.
    pub fn at(&self, commit: &str) -> Self {
        Self { repo: self.repo.at(commit), ..self.clone() }
    }

    /// The `config.json` of the folder that the file is in.
    pub fn config(&self) -> Self {
        let folder = self.file.rfind('/').map_or("", |slash| &self.file[..=slash]);
        Self { file: format!("{folder}{CONFIG}"), ..self.clone() }
    }
}

impl FromStr for HubFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let not_of_form = || format!("{text:?} is not of the form {HUB_PREFIX}OWNER/NAME[@REVISION]/FILE");
        let rest = text.strip_prefix(HUB_PREFIX).ok_or_else(not_of_form)?;
        let (kind, rest) = match rest.strip_prefix(RepoKind::Dataset.prefix()) {
            Some(rest) => (RepoKind::Dataset, rest),
            None => (RepoKind::Model, rest),
        };
        let (repo, file) = HubRepo::split(kind, rest).ok_or_else(not_of_form)??;
        repo.file(file.ok_or_else(not_of_form)?)
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.repo, self.file)
    }
}

/// Whether `text` is the full hexadecimal name of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether `text` is the hexadecimal form of a SHA-256, which the Hub uses as the entity tag of large files.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An owner or a name: the Hub's alphabet, in which `--` separates them in the cache.
fn is_repo_part(part: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    is_inner_path(part) && part.bytes().all(known) && !part.contains("--") && !part.contains("..")
}

/// Whether `path`, joined to a folder, can only lead inside it, on any system.
pub(super) fn is_inner_path(path: &str) -> bool {
    let inner = |part: &str| !matches!(part, "" | "." | "..");
    path.split('/').all(inner) && !path.contains(['\\', ':', '\0']) && !path.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn names_are_read_and_written() {
        for (text, repo, revision, file, full) in [
            ("hub:a/b.c/m.bin", "a/b.c", "main", "m.bin", "hub:a/b.c@main/m.bin"),
            ("hub:a/b@v1/x/m.bin", "a/b", "v1", "x/m.bin", "hub:a/b@v1/x/m.bin"),
            ("hub:a/b@refs%2Fpr%2F1/m", "a/b", "refs/pr/1", "m", "hub:a/b@refs%2Fpr%2F1/m"),
            ("hub:datasets/a/b/d/0.parquet", "a/b", "main", "d/0.parquet", "hub:datasets/a/b@main/d/0.parquet"),
        ] {
            let name: HubFile = text.parse().unwrap();
            assert_eq!((name.repo().name(), name.repo().revision(), name.file()), (repo, revision, file));
            assert_eq!(name.to_string(), full);
            assert_eq!(full.parse::<HubFile>().unwrap(), name);
            assert_eq!(name.repo().commit(), None);
            assert_eq!(name.at(COMMIT).repo().commit(), Some(COMMIT));
        }
    }

    #[test]
    fn the_config_lies_beside_the_file() {
        for (file, config) in [("m.bin", "config.json"), ("x/y/m.bin", "x/y/config.json")] {
            let name = HubRepo::new(RepoKind::Model, "a/b", "main").unwrap().file(file).unwrap();
            assert_eq!(name.config().file(), config);
        }
    }

    #[test]
    fn nothing_that_leads_out_of_the_cache_is_a_name() {
        for text in [
            "hub:",
            "hub:a",
            "hub:a/b",
            "hub:a/b/",
            "hub:a/b@/m",
            "hub:/b/m",
            "hub:a//m",
            "a/b/m",
            "hub:../b/m",
            "hub:a/../m",
            "hub:a/..@main/m",
            "hub:a--b/c/m",
            "hub:a/b--c/m",
            "hub:a b/c/m",
            "hub:a/b@../m",
            "hub:a/b@..%2F..%2Fx/m",
            "hub:a/b@%2Fetc/m",
            "hub:a/b@main/../m",
            "hub:a/b@main/x/../../m",
            "hub:a/b@main//etc/passwd",
            "hub:a/b@main/x\\..\\m",
            "hub:a/b@main/C:m",
            "hub:a/b@main/./m",
            "hub:a/b@main/m\n",
        ] {
            assert!(text.parse::<HubFile>().is_err(), "{text:?}");
        }
    }
}
