//! One request to an MLflow server (`mlflow/protos/service.proto`), and what its refusals mean.

use crate::error::{Error, Result};
use crate::http::{Address, USER_AGENT, text_of};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Method, Url};
use serde_json::Value;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long an answer may take, unless `MLFLOW_HTTP_REQUEST_TIMEOUT` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take until a server is there to be asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a slow network carries per second, so that large artefacts have their time.
const SLOWEST_BYTES_PER_S: u64 = 100_000;
/// Bytes of the longest answer that is read, and characters of what a server says that are shown.
const LARGEST_ANSWER: u64 = 1 << 26;
const LONGEST_MESSAGE: usize = 300;

/// Who asks, and how long answers may take: `MLFLOW_TRACKING_USERNAME` with `MLFLOW_TRACKING_PASSWORD`, else `MLFLOW_TRACKING_TOKEN`, and
/// `MLFLOW_HTTP_REQUEST_TIMEOUT` in seconds, as MLflow's own client reads them. They are never printed and never stored.
#[derive(Clone, Default)]
pub struct Credentials {
    login: Option<(String, String)>,
    token: Option<String>,
    timeout: Option<Duration>,
}

impl Credentials {
    /// What MLflow's own clients read: `MLFLOW_TRACKING_TOKEN`, or `MLFLOW_TRACKING_USERNAME` with `MLFLOW_TRACKING_PASSWORD`.
    pub fn from_env() -> Self {
        Self::read(&|name| std::env::var(name).ok())
    }

    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).map(|text| text.trim().to_string()).filter(|text| !text.is_empty());
        let login = set("MLFLOW_TRACKING_USERNAME").zip(set("MLFLOW_TRACKING_PASSWORD"));
        let seconds =
            set("MLFLOW_HTTP_REQUEST_TIMEOUT").and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
        Self { login, token: set("MLFLOW_TRACKING_TOKEN"), timeout: seconds.map(Duration::from_secs) }
    }

    /// Whether there are any.
    pub fn is_given(&self) -> bool {
        self.login.is_some() || self.token.is_some()
    }
}

/// Why a request came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// Nobody answered, or not in time.
    Unreachable(String),
    /// An answer with this status, MLflow's `error_code` and `message`.
    Refused { status: u16, code: String, message: String },
    /// An answer that names another address, which is not asked.
    Redirected(String),
    /// An answer that makes no sense.
    Malformed(String),
    /// The experiment of this name and id was deleted there.
    InBin { name: String, id: String },
    /// On this machine.
    Local(Error),
}

/// What a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The same request may succeed later.
    Moment,
    /// Every request fails until somebody changes something.
    Server,
    /// The run at hand: others may succeed.
    Run,
}

impl Failure {
    /// How much else the same failure will befall: whether to send again, leave the run, or leave the server.
    pub fn scope(&self) -> Scope {
        match self {
            Failure::Unreachable(_) => Scope::Moment,
            Failure::Redirected(_) | Failure::Malformed(_) => Scope::Server,
            Failure::InBin { .. } | Failure::Local(_) => Scope::Run,
            Failure::Refused { status, code, .. } => match status {
                408 | 429 | 500.. => Scope::Moment,
                401 | 403 | 407 => Scope::Server,
                // Not MLflow's own: there is another program at this address.
                404 | 405 if code.is_empty() => Scope::Server,
                _ => Scope::Run,
            },
        }
    }

    /// Whether MLflow itself says that there is no such thing.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Failure::Refused { code, .. } if code == "RESOURCE_DOES_NOT_EXIST")
    }

    /// Whether the request is larger than the server, or what is before it, takes.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Failure::Refused { status: 413, .. })
    }

    /// What happened and what to do.
    pub fn problem(&self) -> String {
        let (status, code, message) = match self {
            Failure::Local(error) => return error.to_string(),
            Failure::Unreachable(problem) => {
                return format!("does not answer ({problem}); is it running, and this its address?");
            }
            Failure::Malformed(problem) => {
                return format!(
                    "gives no answer of MLflow ({problem}); is it a server of MLflow, and this its address?"
                );
            }
            Failure::InBin { name, id } => {
                return format!(
                    "has experiment {name:?} in its bin; bring it back with `mlflow experiments restore --experiment-id {id}`"
                );
            }
            Failure::Redirected(to) => {
                return format!(
                    "sends elsewhere, to {to}, which is not asked; if that is the server, give its address"
                );
            }
            Failure::Refused { status, code, message } => (status, code, message),
        };
        let said = match (code.is_empty(), message.is_empty()) {
            (_, true) => code.clone(),
            (true, false) => message.clone(),
            (false, false) => format!("{code}: {message}"),
        };
        let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
        match status {
            401 => format!(
                "refuses the credentials, or their lack, with status 401{said}; set MLFLOW_TRACKING_TOKEN, or \
                 MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ),
            403 => format!("forbids it to these credentials, or to this address, with status 403{said}"),
            404 | 405 if code.is_empty() => {
                format!("has nothing of MLflow at this address, status {status}{said}; check the address")
            }
            413 => format!("takes no request of this size, status 413{said}; raise the limit of what is before it"),
            500.. => format!("has a problem, status {status}{said}"),
            _ => format!("refuses with status {status}{said}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Local(error)
    }
}

/// A server's REST interface. Redirects are not followed, so that credentials reach nobody but it.
pub(super) struct Rest {
    client: Client,
    base: Url,
    authorization: Option<HeaderValue>,
    /// What no message repeats.
    secrets: Vec<String>,
    timeout: Duration,
    /// How many there were.
    answers: Arc<AtomicUsize>,
}

impl Rest {
    /// Errors: credentials that cannot be sent.
    pub fn new(address: &Address, credentials: Credentials) -> Result<Self> {
        let Credentials { login, token, timeout } = credentials;
        let in_address = address.login().map(|(name, password)| (name.to_string(), password.to_string()));
        let mut secrets: Vec<String> = Vec::new();
        let authorization = match (in_address.or(login), token) {
            (Some((name, password)), _) => {
                let encoded = STANDARD.encode(format!("{name}:{password}"));
                secrets.extend([encoded.clone(), password]);
                Some(format!("Basic {encoded}"))
            }
            (None, Some(token)) => {
                secrets.push(token.clone());
                Some(format!("Bearer {token}"))
            }
            (None, None) => None,
        };
        secrets.retain(|secret| !secret.is_empty());
        let authorization = authorization.map(|text| {
            let mut value = HeaderValue::from_str(&text).map_err(|_| {
                Error::Usage("MLFLOW_TRACKING_TOKEN holds characters that no token has; check it".to_string())
            })?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        });
        let timeout = timeout.unwrap_or(TIMEOUT);
        let client = Client::builder().user_agent(USER_AGENT).redirect(Policy::none());
        let client = client.connect_timeout(CONNECT_TIMEOUT.min(timeout)).timeout(timeout).build();
        let client = client.map_err(|error| Error::Tracker { server: address.to_string(), problem: text_of(error) })?;
        Ok(Self {
            client,
            base: address.url().clone(),
            authorization: authorization.transpose()?,
            secrets,
            timeout,
            answers: Arc::default(),
        })
    }

    /// How many answers there were, which goes on counting.
    pub fn answers(&self) -> Arc<AtomicUsize> {
        self.answers.clone()
    }

    /// What `/api/2.0/mlflow/PATH` says to a question.
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let mut url = self.url(["mlflow"].into_iter().chain(path.split('/')))?;
        url.query_pairs_mut().extend_pairs(query);
        self.answer(self.request(Method::GET, url))
    }

    /// The same with a body.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let url = self.url(["mlflow"].into_iter().chain(path.split('/')))?;
        self.answer(self.request(Method::POST, url).header(CONTENT_TYPE, "application/json").body(body.to_string()))
    }

    /// Has the server's proxy keep an artefact under `path`.
    pub fn put_artefact(&self, path: &str, content: Vec<u8>) -> Result<(), Failure> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        let url = self.url(["mlflow-artifacts", "artifacts"].into_iter().chain(parts))?;
        let timeout = self.timeout + Duration::from_secs(content.len() as u64 / SLOWEST_BYTES_PER_S);
        let request = self.request(Method::PUT, url).header(CONTENT_TYPE, "application/octet-stream");
        self.answer(request.timeout(timeout).body(content)).map(drop)
    }

    /// `ADDRESS/api/2.0/PARTS`, each part escaped.
    fn url<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Result<Url, Failure> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => drop(segments.pop_if_empty().extend(["api", "2.0"].into_iter().chain(parts))),
            Err(()) => return Err(Failure::Malformed("no address of HTTP".to_string())),
        }
        Ok(url)
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.client.request(method, url);
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    /// The JSON that comes back; null for an answer without content.
    fn answer(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = request.send().map_err(|error| Failure::Unreachable(text_of(error)))?;
        self.answers.fetch_add(1, Ordering::Relaxed);
        let status = response.status();
        if status.is_redirection() {
            return Err(Failure::Redirected(self.target(&response)));
        }
        let mut content = Vec::new();
        let read = response.take(LARGEST_ANSWER).read_to_end(&mut content);
        if let (Err(error), true) = (read, status.is_success()) {
            return Err(Failure::Unreachable(error.to_string()));
        }
        let parsed = serde_json::from_slice::<Value>(&content);
        if status.is_success() {
            return match (content.trim_ascii().is_empty(), parsed) {
                (true, _) => Ok(Value::Null),
                (false, Ok(value)) => Ok(value),
                (false, Err(error)) => Err(Failure::Malformed(error.to_string())),
            };
        }
        let field =
            |name: &str| parsed.as_ref().ok().and_then(|json| json.get(name)?.as_str().map(|text| self.shown(text)));
        let (code, message) = (field("error_code").unwrap_or_default(), field("message").unwrap_or_default());
        Err(Failure::Refused { status: status.as_u16(), code, message })
    }

    /// Where an answer sends to, without what may be secret.
    fn target(&self, response: &Response) -> String {
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
        let Ok(mut target) = response.url().join(location) else { return "nowhere".to_string() };
        target.set_query(None);
        target.set_fragment(None);
        // An address with a host can be without both.
        let _ = (target.set_username(""), target.set_password(None));
        self.shown(target.as_str())
    }

    /// What a server says, on one line and without the secrets that it was sent.
    fn shown(&self, text: &str) -> String {
        let redacted = self.secrets.iter().fold(text.to_string(), |text, secret| text.replace(secret, "***"));
        super::cut(&redacted.split_whitespace().collect::<Vec<_>>().join(" "), LONGEST_MESSAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str, message: &str) -> Failure {
        Failure::Refused { status, code: code.into(), message: message.into() }
    }

    #[test]
    fn each_failure_says_what_to_do_and_whom_it_concerns() {
        for (failure, scope, parts) in [
            (refused(401, "", ""), Scope::Server, ["401", "MLFLOW_TRACKING_TOKEN"]),
            (refused(403, "PERMISSION_DENIED", "no"), Scope::Server, ["403", "PERMISSION_DENIED: no"]),
            (refused(404, "", ""), Scope::Server, ["nothing of MLflow", "check the address"]),
            (refused(404, "RESOURCE_DOES_NOT_EXIST", "no run"), Scope::Run, ["404", "no run"]),
            (refused(413, "", ""), Scope::Run, ["413", "raise the limit"]),
            (refused(429, "", ""), Scope::Moment, ["429", "refuses"]),
            (refused(500, "INTERNAL_ERROR", "disk full"), Scope::Moment, ["status 500", "disk full"]),
            (Failure::Unreachable("refused".into()), Scope::Moment, ["does not answer", "refused"]),
            (Failure::Redirected("http://e/".into()), Scope::Server, ["http://e/", "not asked"]),
            (Failure::Malformed("a page".into()), Scope::Server, ["a page", "its address"]),
        ] {
            let problem = failure.problem();
            assert!(parts.iter().all(|part| problem.contains(part)), "{problem}");
            assert_eq!(failure.scope(), scope, "{problem}");
        }
    }

    #[test]
    fn credentials_are_those_of_mlflow_and_are_not_repeated() {
        let read_for = |address: &str, variables: &[(&str, &str)]| {
            let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
            Rest::new(&address.parse::<Address>().unwrap(), Credentials::read(&value))
        };
        let read = |variables: &[(&str, &str)]| read_for("http://127.0.0.1:5000", variables);
        let sent = |rest: Result<Rest>| rest.unwrap().authorization.unwrap().to_str().unwrap().to_string();
        let (name, password) = (("MLFLOW_TRACKING_USERNAME", "me"), ("MLFLOW_TRACKING_PASSWORD", "secret"));
        let token = ("MLFLOW_TRACKING_TOKEN", "t0ken");
        assert_eq!(sent(read(&[name, password, token])), format!("Basic {}", STANDARD.encode("me:secret")));
        assert_eq!(sent(read(&[name, token])), "Bearer t0ken");
        // What is written into an address is meant for that server.
        let of_address = read_for("http://of:address@127.0.0.1:5000", &[name, password, token]);
        assert_eq!(sent(of_address), format!("Basic {}", STANDARD.encode("of:address")));
        let rest = read(&[name, password, ("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")]).unwrap();
        assert_eq!(rest.timeout, Duration::from_secs(3));
        let said = rest.shown(&format!("Basic {}\n of me:secret", STANDARD.encode("me:secret")));
        assert_eq!(said, "Basic *** of me:***");
        let broken = read(&[("MLFLOW_TRACKING_TOKEN", "a\nb")]).err().unwrap().to_string();
        assert!(broken.contains("MLFLOW_TRACKING_TOKEN") && !broken.contains('\n'), "{broken}");
    }
}
