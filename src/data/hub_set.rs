//! Names of data sets on the Hub, as a grid writes them.

use crate::hub::{HUB_PREFIX, HubRepo, RepoKind};
use std::fmt;
use std::str::FromStr;

/// A data set's repository and one of its configurations: `hub:OWNER/NAME[@REVISION][/CONFIG]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HubSet {
    pub repo: HubRepo,
    /// The folder that its shards lie in; `None`: the only one there is.
    pub config: Option<String>,
}

impl HubSet {
    /// The same configuration in the repository `repo`.
    pub fn of(&self, repo: HubRepo) -> Self {
        Self { repo, ..self.clone() }
    }
}

impl FromStr for HubSet {
    type Err = String;

    /// `hub:datasets/OWNER/...`, as messages name the repository, is the same.
    fn from_str(text: &str) -> Result<Self, String> {
        let not_of_form = || format!("data `{text}` is not of the form {HUB_PREFIX}OWNER/NAME[@REVISION][/CONFIG]");
        let rest = text.strip_prefix(HUB_PREFIX).ok_or_else(not_of_form)?;
        let rest = rest.strip_prefix(RepoKind::Dataset.prefix()).unwrap_or(rest);
        let (repo, config) = HubRepo::split(RepoKind::Dataset, rest).ok_or_else(not_of_form)??;
        match config {
            Some(config) if repo.file(config).is_err() || config.contains('/') => {
                Err(format!("data `{text}`: {config:?} cannot be the name of a configuration"))
            }
            _ => Ok(Self { repo, config: config.map(str::to_string) }),
        }
    }
}

impl fmt::Display for HubSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HUB_PREFIX}{}@{}", self.repo.name(), self.repo.written_revision())?;
        self.config.iter().try_for_each(|config| write!(f, "/{config}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, name, revision, config, full) in [
            ("hub:uoft-cs/cifar10", "uoft-cs/cifar10", "main", None, "hub:uoft-cs/cifar10@main"),
            ("hub:a/b@v1", "a/b", "v1", None, "hub:a/b@v1"),
            ("hub:a/b/plain_text", "a/b", "main", Some("plain_text"), "hub:a/b@main/plain_text"),
            ("hub:datasets/a/b@v1/c", "a/b", "v1", Some("c"), "hub:a/b@v1/c"),
            (
                "hub:a/b@refs%2Fconvert%2Fparquet/c",
                "a/b",
                "refs/convert/parquet",
                Some("c"),
                "hub:a/b@refs%2Fconvert%2Fparquet/c",
            ),
        ] {
            let set: HubSet = text.parse().unwrap();
            assert_eq!((set.repo.name(), set.repo.revision(), set.config.as_deref()), (name, revision, config));
            assert_eq!(set.to_string(), full);
            assert_eq!(full.parse::<HubSet>().unwrap(), set);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["hub:", "hub:a", "hub:a/", "hub:a/b/", "hub:a/b@", "hub:a/b@../c", "hub:a/b/..", "hub:a/b/c/d"] {
            assert!(text.parse::<HubSet>().is_err(), "{text:?}");
        }
    }
}
