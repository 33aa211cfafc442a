//! One file from the Hub's servers, continued where an earlier attempt broke, its content checked.

use super::failure::Failure;
use super::name::{HubFile, is_commit, is_inner_path, is_sha256};
use super::settings::HubSettings;
use crate::error::Error;
use crate::http::{USER_AGENT, text_of};
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, LOCATION, RANGE,
};
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode, Url};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

/// Longest silence of a server, in seconds.
const TIMEOUT_S: u64 = 30;
/// Attempts in a row without a new byte.
const ATTEMPTS: u32 = 4;
/// Before the second attempt; doubled for each further one.
const PAUSE: Duration = Duration::from_millis(250);
/// Redirects on the Hub itself, which sends renamed repositories to their new names.
const REDIRECTS: usize = 5;
const CHUNK_BYTES: usize = 1 << 16;

/// What the Hub says of a file before it sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub commit: String,
    /// The SHA-256 of large files; another fingerprint of small ones.
    pub etag: String,
    pub bytes: Option<u64>,
}

/// The two ways of asking.
pub(super) struct Transfer {
    /// Sees the Hub's own answer, which describes the file, and not that of the server with the content.
    describing: Client,
    /// Follows redirects; `reqwest` drops the token when host, port or scheme change.
    following: Client,
    authorization: Option<HeaderValue>,
}

impl Transfer {
    pub fn new(settings: &HubSettings) -> Result<Self, Failure> {
        let client = |policy: Policy| {
            let timeout = Duration::from_secs(TIMEOUT_S);
            let client = Client::builder().user_agent(USER_AGENT).redirect(policy);
            client
                .connect_timeout(timeout)
                .timeout(timeout)
                .build()
                .map_err(|error| Failure::Unreachable(text_of(error)))
        };
        let authorization = settings.token.as_ref().map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.secret())).map_err(|_| {
                Failure::Local(Error::Usage(
                    "the Hub's token holds characters that no token has; check HF_TOKEN".to_string(),
                ))
            })?;
            value.set_sensitive(true);
            Ok::<_, Failure>(value)
        });
        Ok(Self {
            describing: client(Policy::none())?,
            following: client(Policy::default())?,
            authorization: authorization.transpose()?,
        })
    }

    fn request(&self, client: &Client, method: Method, url: &Url) -> RequestBuilder {
        let request = client.request(method, url.clone()).header(ACCEPT_ENCODING, "identity");
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    /// Asks what `file` is; its revision must be a commit.
    pub fn describe(&self, settings: &HubSettings, file: &HubFile) -> Result<(Url, Announced), Failure> {
        let url = address_of(settings, file)?;
        let response = with_patience(&mut || self.head(url.clone()), &mut |_| false)?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_string);
        let commit = header("x-repo-commit").filter(|commit| is_commit(commit));
        let etag = header("x-linked-etag").or_else(|| header(ETAG.as_str()));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_string());
        // The tag becomes the name of a file.
        let etag = etag.filter(|etag| is_inner_path(etag) && !etag.contains('/'));
        let bytes = header("x-linked-size").or_else(|| header(CONTENT_LENGTH.as_str()));
        match (commit, etag) {
            (Some(commit), Some(etag)) => {
                Ok((url, Announced { commit, etag, bytes: bytes.and_then(|bytes| bytes.parse().ok()) }))
            }
            (None, _) => Err(Failure::Malformed("x-repo-commit is missing or not a commit".to_string())),
            (_, None) => Err(Failure::Malformed("the entity tag is missing or not a name".to_string())),
        }
    }

    /// The Hub's own answer: redirects inside it are followed, the one to another server is not.
    fn head(&self, mut url: Url) -> Result<Response, Failure> {
        for _ in 0..=REDIRECTS {
            let response = self.request(&self.describing, Method::HEAD, &url).send().map_err(unreachable)?;
            if !response.status().is_redirection() {
                return answered(response);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            match location {
                Some(path) if !path.starts_with("//") && Url::parse(path).is_err() => {
                    url = url.join(path).map_err(|error| Failure::Malformed(error.to_string()))?;
                }
                _ => return Ok(response),
            }
        }
        Err(Failure::Malformed("redirects do not end".to_string()))
    }

    /// The last of the content at `url`, `bytes` long, from its byte `from` on.
    ///
    /// Errors: a server that sends something else.
    pub fn tail(&self, url: &Url, from: u64, bytes: u64) -> Result<Vec<u8>, Failure> {
        let mut attempt = || {
            let request = self.request(&self.following, Method::GET, url).header(RANGE, format!("bytes={from}-"));
            let response = answered(request.send().map_err(unreachable)?)?;
            if from > 0 && !continues(&response, from) {
                return Err(Failure::Malformed("the server does not send parts of files".to_string()));
            }
            let content = response.bytes().map_err(|error| Failure::Broken { have: 0, problem: text_of(error) })?;
            match content.len() as u64 == bytes - from {
                true => Ok(content.to_vec()),
                false => {
                    let problem = format!("{} bytes came, {} were asked for", content.len(), bytes - from);
                    Err(Failure::Broken { have: 0, problem })
                }
            }
        };
        with_patience(&mut attempt, &mut |_| false)
    }

    /// Brings `partial` to the whole content, going on from what it holds; `advanced` is told the bytes there are.
    ///
    /// Errors: what the server sent is not what it announced; then `partial` is gone.
    pub fn complete(
        &self,
        url: &Url,
        announced: &Announced,
        partial: &Path,
        advanced: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let resumed = length(partial) > 0;
        match self.fill(url, announced, partial, advanced).and_then(|()| check(announced, partial)) {
            // What was there may have been the beginning of something else.
            Err(Failure::Malformed(_)) if resumed => {
                remove(partial)?;
                self.fill(url, announced, partial, advanced)?;
                check(announced, partial).inspect_err(|_| drop(remove(partial)))
            }
            Err(failure @ Failure::Malformed(_)) => {
                remove(partial)?;
                Err(failure)
            }
            result => result,
        }
    }

    fn fill(
        &self,
        url: &Url,
        announced: &Announced,
        partial: &Path,
        advanced: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let mut before = length(partial);
        with_patience(&mut || self.attempt(url, announced, partial, advanced), &mut |_| {
            let have = length(partial);
            std::mem::replace(&mut before, have) < have
        })
    }

    /// One request for all that is missing.
    fn attempt(
        &self,
        url: &Url,
        announced: &Announced,
        partial: &Path,
        advanced: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let local = |action| move |error| Failure::Local(Error::io(action, partial)(error));
        if announced.bytes.is_some_and(|bytes| length(partial) > bytes) {
            remove(partial)?;
        }
        let mut have = length(partial);
        if have > 0 && announced.bytes == Some(have) {
            advanced(have);
            return Ok(());
        }
        let mut request = self.request(&self.following, Method::GET, url);
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let mut response = request.send().map_err(unreachable)?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(Failure::Malformed("the server has less than was there already".to_string()));
        }
        response = answered(response)?;
        let mut file = OpenOptions::new().create(true).append(true).open(partial).map_err(local("cannot write"))?;
        if have > 0 && !continues(&response, have) {
            // The whole content comes, whatever was asked for.
            file.set_len(0).map_err(local("cannot write"))?;
            have = 0;
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            advanced(have);
            let read =
                response.read(&mut chunk).map_err(|error| Failure::Broken { have, problem: error.to_string() })?;
            if read == 0 {
                break;
            }
            file.write_all(&chunk[..read]).map_err(local("cannot write"))?;
            have += read as u64;
        }
        file.sync_all().map_err(local("cannot write"))?;
        match announced.bytes {
            Some(bytes) if have < bytes => Err(Failure::Broken { have, problem: format!("{bytes} were announced") }),
            Some(bytes) if have > bytes => {
                Err(Failure::Malformed(format!("more than the announced {bytes} bytes came")))
            }
            _ => Ok(()),
        }
    }
}

/// `ENDPOINT/[datasets/]OWNER/NAME/resolve/COMMIT/FILE`.
pub(super) fn address_of(settings: &HubSettings, file: &HubFile) -> Result<Url, Failure> {
    let not_an_address = |_| Failure::Local(Error::Usage("HF_ENDPOINT is not an http address".to_string()));
    let mut url = Url::parse(&settings.endpoint).map_err(|error| not_an_address(error.to_string()))?;
    let mut segments = url.path_segments_mut().map_err(|()| not_an_address(String::new()))?;
    segments.pop_if_empty();
    segments.extend(file.repo().kind().prefix().split('/').filter(|segment| !segment.is_empty()));
    segments
        .extend(file.repo().name().split('/'))
        .push("resolve")
        .push(file.repo().revision())
        .extend(file.file().split('/'));
    drop(segments);
    Ok(url)
}

/// Whether a response goes on after the first `have` bytes.
fn continues(response: &Response, have: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")))
}

/// Tries again while failures are transient; `advanced` says whether an attempt brought anything.
fn with_patience<T>(
    attempt: &mut dyn FnMut() -> Result<T, Failure>,
    advanced: &mut dyn FnMut(&Failure) -> bool,
) -> Result<T, Failure> {
    let mut failures = 0;
    loop {
        match attempt() {
            Err(failure) if failure.is_transient() => {
                failures = if advanced(&failure) { 1 } else { failures + 1 };
                if failures >= ATTEMPTS {
                    return Err(failure);
                }
                std::thread::sleep(PAUSE * 2u32.pow(failures - 1));
            }
            result => return result,
        }
    }
}

/// A response with a status that means what was asked for.
fn answered(response: Response) -> Result<Response, Failure> {
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(Failure::refused(status.as_u16(), |name| {
            Some(response.headers().get(name)?.to_str().ok()?.to_string())
        })),
    }
}

fn unreachable(error: reqwest::Error) -> Failure {
    match error.is_redirect() {
        true => Failure::Malformed("redirects do not end".to_string()),
        false => Failure::Unreachable(text_of(error)),
    }
}

/// Compares the content with the SHA-256 that was announced, if one was.
fn check(announced: &Announced, partial: &Path) -> Result<(), Failure> {
    if !is_sha256(&announced.etag) {
        return Ok(());
    }
    let sum = sha256_of(partial).map_err(|error| Failure::Local(Error::io("cannot read", partial)(error)))?;
    match sum.eq_ignore_ascii_case(&announced.etag) {
        true => Ok(()),
        false => {
            Err(Failure::Malformed(format!("the content has SHA-256 {sum}, and {} was announced", announced.etag)))
        }
    }
}

pub(super) fn sha256_of(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    std::io::copy(&mut file, &mut hash)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn length(partial: &Path) -> u64 {
    std::fs::metadata(partial).map_or(0, |metadata| metadata.len())
}

fn remove(partial: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::Local(Error::io("cannot remove", partial)(error)))
        }
        _ => Ok(()),
    }
}
