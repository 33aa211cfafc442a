//! What can go wrong with the Hub, and what to do about it.

use super::name::HubRepo;
use super::settings::HubSettings;
use crate::error::Error;
use crate::http::text_of;
use hf_hub::HFError;

/// Why a file could not be had.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody answered.
    Unreachable(String),
    /// The connection broke again and again.
    Broken { have: u64, problem: String },
    /// An answer with this status and the Hub's `x-error-code`; `commit` is the one that it speaks of.
    Refused { status: u16, code: String, message: String, commit: Option<String> },
    /// An answer that makes no sense.
    Malformed(String),
    /// Neither in the cache nor allowed to ask for.
    Offline,
    /// On this machine.
    Local(Error),
}

impl Failure {
    /// From the headers in which the Hub explains a status.
    pub(super) fn refused(status: u16, header: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name| header(name).unwrap_or_default();
        Failure::Refused {
            status,
            code: text("x-error-code"),
            message: text("x-error-message"),
            commit: header("x-repo-commit"),
        }
    }

    /// Whether the file itself is missing, rather than its repository or revision.
    pub(super) fn is_missing_file(&self) -> bool {
        matches!(self, Failure::Refused { code, .. } if code == "EntryNotFound")
    }

    /// Whether the Hub itself says that `commit` has no such file.
    pub(super) fn is_missing_from(&self, commit: &str) -> bool {
        self.is_missing_file() && matches!(self, Failure::Refused { commit: Some(of), .. } if of == commit)
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Failure::Unreachable(_) | Failure::Broken { .. } => true,
            Failure::Refused { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Failure::Malformed(_) | Failure::Offline | Failure::Local(_) => false,
        }
    }

    /// The error that the user reads; it is about `repo`, or the file of this path in it.
    pub(super) fn error(self, repo: &HubRepo, file: Option<&str>, settings: &HubSettings) -> Error {
        let problem = match self {
            Failure::Local(error) => return error,
            Failure::Unreachable(problem) => {
                format!("cannot reach {} ({problem}); {}", settings.shown_endpoint(), elsewhere(settings))
            }
            Failure::Broken { have, problem } => {
                format!("the connection broke after {have} bytes ({problem}); the same command goes on from there")
            }
            Failure::Refused { status, code, message, .. } => refusal(status, &code, &message, (repo, file), settings),
            Failure::Malformed(problem) => format!("{} gave no usable answer: {problem}", settings.shown_endpoint()),
            Failure::Offline => {
                format!("is not in the cache, and HF_HUB_OFFLINE is set: unset it, or {}", elsewhere(settings))
            }
        };
        let name = file.map_or(repo.to_string(), |file| format!("{repo}/{file}"));
        Error::Hub { name, problem: settings.redact(&problem) }
    }
}

/// What each refusal means.
fn refusal(
    status: u16,
    code: &str,
    message: &str,
    (repo, file): (&HubRepo, Option<&str>),
    settings: &HubSettings,
) -> String {
    let page = format!("{}/{}{}", settings.shown_endpoint(), repo.kind().prefix(), repo.name());
    let (name, revision) = (repo.name(), repo.revision());
    let said = if message.is_empty() { String::new() } else { format!(" ({message})") };
    let log_in = "log in with `hf auth login` or set HF_TOKEN";
    match (status, code) {
        (401, "GatedRepo") => format!("gated: accept the licence at {page}, then {log_in}"),
        (_, "GatedRepo") => format!("gated: accept the licence at {page} with the account of your token{said}"),
        (_, "EntryNotFound") => format!("not found: {name} has no file {} at {revision}", file.unwrap_or_default()),
        (_, "RevisionNotFound") => {
            format!("not found: {name} has no branch, tag or commit {revision}; see {page}/commits")
        }
        (401, _) if settings.token.is_some() => {
            format!("not found, or your token is not valid or not allowed to read {page}{said}")
        }
        (401, _) | (_, "RepoNotFound") => format!("not found: there is no {page}; if it is private, {log_in}"),
        (403, _) => format!("your token may not read {page}{said}"),
        (404, _) => format!("not found at {}{said}", settings.shown_endpoint()),
        (429, _) => format!("too many requests{said}; wait some minutes, or {log_in}, which raises the limit"),
        (500.., _) => format!("{} has a problem (status {status}){said}; try again later", settings.shown_endpoint()),
        _ => format!("{} refused with status {status}{said}", settings.shown_endpoint()),
    }
}

/// What to do on a machine that cannot download.
fn elsewhere(settings: &HubSettings) -> String {
    format!(
        "run `harness fetch FILE` with the same grid where there is a network, and copy its cache to {}",
        settings.cache.display()
    )
}

impl From<HFError> for Failure {
    fn from(error: HFError) -> Self {
        match error {
            HFError::Http { context }
            | HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Conflict { context }
            | HFError::RateLimited { context, .. }
            | HFError::RepoNotFound { context: Some(context), .. }
            | HFError::RevisionNotFound { context: Some(context), .. }
            | HFError::EntryNotFound { context: Some(context), .. } => Failure::Refused {
                status: context.status.as_u16(),
                code: context.error_code.unwrap_or_default(),
                message: context.server_message.unwrap_or_default(),
                commit: None,
            },
            HFError::Request { source, .. } if source.is_decode() => Failure::Malformed(text_of(source)),
            HFError::Request { source, .. } => Failure::Unreachable(text_of(source)),
            other => Failure::Malformed(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::RepoKind;
    use super::*;
    use std::path::PathBuf;

    fn message(failure: Failure, token: Option<&str>) -> String {
        let settings = HubSettings {
            endpoint: "https://me:password@hub.example/mirror".into(),
            cache: PathBuf::from("/cache"),
            token: token.and_then(super::super::settings::Token::new),
            offline: false,
        };
        failure.error(&HubRepo::new(RepoKind::Model, "a/b", "v1").unwrap(), Some("m.bin"), &settings).to_string()
    }

    fn refused(status: u16, code: &str, message: &str) -> Failure {
        Failure::Refused { status, code: code.into(), message: message.into(), commit: None }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        for (failure, parts) in [
            (
                refused(401, "GatedRepo", ""),
                ["hub:a/b@v1/m.bin", "accept the licence at https://hub.example/mirror/a/b"],
            ),
            (refused(403, "GatedRepo", ""), ["gated", "account of your token"]),
            (refused(404, "EntryNotFound", ""), ["not found", "no file m.bin at v1"]),
            (refused(404, "RevisionNotFound", ""), ["not found", "no branch, tag or commit v1"]),
            (refused(401, "RepoNotFound", ""), ["not found: there is no https://hub.example/mirror/a/b", "HF_TOKEN"]),
            (refused(401, "", ""), ["not found", "hf auth login"]),
            (refused(403, "", "no scope"), ["may not read", "no scope"]),
            (refused(429, "", ""), ["too many requests", "wait"]),
            (refused(503, "", ""), ["status 503", "try again"]),
            (
                Failure::Unreachable("refused".into()),
                ["cannot reach https://hub.example/mirror (refused)", "copy its cache to /cache"],
            ),
            (Failure::Offline, ["HF_HUB_OFFLINE", "`harness fetch FILE`"]),
            (Failure::Broken { have: 7, problem: "reset".into() }, ["after 7 bytes (reset)", "goes on from there"]),
        ] {
            let text = message(failure, None);
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
            assert!(!text.contains("password"), "{text}");
        }
    }

    #[test]
    fn a_token_that_the_server_repeats_is_not_repeated() {
        let text = message(refused(401, "", "Bearer hf_secret is not valid"), Some("hf_secret"));
        assert!(text.contains("Bearer *** is not valid") && !text.contains("hf_secret"), "{text}");
    }
}
