//! A Hub on loopback: a repository of weights and one of data on one port, their large files on another, as the real one has them
//! elsewhere.

use metaaug::disk::sha256;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub const REPO: &str = "someone/resnet20";
pub const DATASET: &str = "someone/pictures";
/// The commit that `main` of both repositories is.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// What a gated repository wants to see.
pub const TOKEN: &str = "hf_thisIsTheSecret";

/// Files on a page of a list.
const PAGE: usize = 4;

/// A file of a repository.
pub struct Stored {
    pub content: Vec<u8>,
    /// Whether it comes from the content server, with its SHA-256 as its entity tag.
    pub large: bool,
}

/// What the servers do; tests change it while they run.
#[derive(Default)]
pub struct Behaviour {
    /// By path; those of the repository of data lie in `datasets/`.
    pub files: BTreeMap<String, Stored>,
    /// Every request for a file is refused with this status, `x-error-code` and `x-error-message`.
    pub refusal: Option<(u16, &'static str, &'static str)>,
    /// The same for the API.
    pub api_refusal: Option<(u16, &'static str)>,
    /// Only the owner of [`TOKEN`] is served.
    pub gated: bool,
    /// After how many bytes the next transfers of content break.
    pub cuts: VecDeque<usize>,
    /// Status of the next answers of the content server.
    pub content_statuses: VecDeque<u16>,
    /// Content is sent with one byte changed.
    pub altered: bool,
    pub ignores_ranges: bool,
    /// Pause before content.
    pub pause: Duration,
    /// Announced in place of the true ones.
    pub etag: Option<&'static str>,
    pub commit: Option<&'static str>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whether it came to the server with the content.
    pub to_content: bool,
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

pub struct TestHub {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    content_port: u16,
    behaviour: Mutex<Behaviour>,
    requests: Mutex<Vec<Request>>,
}

impl TestHub {
    /// Serves `files`, large ones first, until the process ends.
    pub fn start(large: &[(&str, &[u8])], small: &[(&str, &[u8])]) -> Self {
        let [hub, content] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let stored = |large: bool| {
            move |(name, content): &(&str, &[u8])| (name.to_string(), Stored { content: content.to_vec(), large })
        };
        let files = large.iter().map(stored(true)).chain(small.iter().map(stored(false))).collect();
        let shared = Arc::new(Shared {
            content_port: content.local_addr().unwrap().port(),
            behaviour: Mutex::new(Behaviour { files, ..Behaviour::default() }),
            requests: Mutex::default(),
        });
        let address = hub.local_addr().unwrap();
        for (listener, to_content) in [(hub, false), (content, true)] {
            let shared = shared.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let shared = shared.clone();
                    // A client that goes away is what some tests are about.
                    std::thread::spawn(move || drop(shared.serve(stream.unwrap(), to_content)));
                }
            });
        }
        Self { address, shared }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.shared.behaviour.lock().unwrap()
    }

    /// Has the repository of data hold `files`, all of them large, and nothing else.
    pub fn hold(&self, files: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let stored = &mut self.behaviour().files;
        stored.retain(|path, _| !path.starts_with("datasets/"));
        let files =
            files.into_iter().map(|(path, content)| (format!("datasets/{path}"), Stored { content, large: true }));
        stored.extend(files);
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }
}

/// Status, headers and content of an answer.
type Answer = (u16, Vec<(String, String)>, Vec<u8>);

impl Shared {
    fn serve(&self, mut stream: TcpStream, to_content: bool) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or(Ok(String::new()))?;
        let mut words = first.split(' ').map(str::to_string);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_string());
        }
        let request = Request { to_content, method, path, headers };
        self.requests.lock().unwrap().push(request.clone());
        let (status, headers, content) = if to_content { self.content(&request) } else { self.hub(&request) };
        let mut head = format!("HTTP/1.1 {status} Answer\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| name == "Content-Length") {
            head.push_str(&format!("Content-Length: {}\r\n", content.len()));
        }
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let (cut, pause) = {
            let mut behaviour = self.behaviour.lock().unwrap();
            (if status < 300 && is_content(&request) { behaviour.cuts.pop_front() } else { None }, behaviour.pause)
        };
        if is_content(&request) {
            std::thread::sleep(pause);
        }
        stream.write_all(&content[..cut.unwrap_or(content.len()).min(content.len())])
    }

    fn hub(&self, request: &Request) -> Answer {
        let behaviour = self.behaviour.lock().unwrap();
        let refuse = |status: u16, code: &str, message: &str| -> Answer {
            let mut headers = header("x-error-code", code);
            headers.extend(header("x-error-message", message));
            (status, headers, b"a page about the error".to_vec())
        };
        let path = request.path.split('?').next().unwrap_or_default();
        let repos = [("/api/models/", REPO), ("/api/datasets/", DATASET)];
        if let Some((rest, repo)) = repos.iter().find_map(|(api, repo)| Some((path.strip_prefix(api)?, repo))) {
            if let Some((status, code)) = behaviour.api_refusal {
                return refuse(status, code, "");
            }
            let json = |json: String| (200, header("Content-Type", "application/json"), json.into_bytes());
            let listed = format!("/tree/{COMMIT}");
            return match rest.strip_prefix(repo) {
                Some("/revision/main") => {
                    let commit = behaviour.commit.unwrap_or(COMMIT);
                    json(format!(r#"{{"_id":"1","id":"{repo}","sha":"{commit}"}}"#))
                }
                Some(of) if of == listed && *repo == DATASET => {
                    let (page, next) = self.page(request, &behaviour.files);
                    let (status, mut headers, content) = json(page);
                    headers.extend(next.into_iter().flat_map(|next| header("Link", &next)));
                    (status, headers, content)
                }
                Some(_) => refuse(404, "RevisionNotFound", "Invalid rev id"),
                None => refuse(401, "RepoNotFound", "Repository not found"),
            };
        }
        if let Some((status, code, message)) = behaviour.refusal {
            return refuse(status, code, message);
        }
        if behaviour.gated && request.headers.get("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return refuse(401, "GatedRepo", "Access to model someone/resnet20 is restricted");
        }
        let inner = format!("/inner/{COMMIT}/");
        let of_data = path.strip_prefix(&format!("/datasets/{DATASET}/resolve/")).and_then(|rest| rest.split_once('/'));
        let of_weights = path.strip_prefix(&format!("/{REPO}/resolve/"));
        let (file, is_inner) = match (of_weights, path.strip_prefix(&inner), of_data) {
            (Some(rest), ..) => (rest.split_once('/').map_or("", |(_, file)| file).to_string(), false),
            (None, Some(file), _) => (file.to_string(), true),
            (None, None, Some((_, file))) => (format!("datasets/{file}"), false),
            (None, None, None) => return refuse(401, "RepoNotFound", "Repository not found"),
        };
        let mut headers = header("x-repo-commit", behaviour.commit.unwrap_or(COMMIT));
        let Some(stored) = behaviour.files.get(&file) else {
            let (status, more, content) = refuse(404, "EntryNotFound", "Entry not found");
            headers.extend(more);
            return (status, headers, content);
        };
        let sum = sha256(&[&stored.content]);
        // Git's hash of small files has 40 digits.
        let etag = format!("\"{}\"", behaviour.etag.unwrap_or(if stored.large { &sum } else { &sum[..40] }));
        if stored.large {
            headers.extend(header("x-linked-etag", &etag));
            headers.extend(header("x-linked-size", &stored.content.len().to_string()));
            let place = format!("http://localhost:{}/{file}?signature=of-the-content-server", self.content_port);
            headers.extend(header("Location", &place));
            return (302, headers, Vec::new());
        }
        if !is_inner {
            headers.extend(header("Location", &format!("{inner}{file}")));
            return (307, headers, Vec::new());
        }
        headers.extend(header("ETag", &etag));
        (200, headers, stored.content.clone())
    }

    /// The part of the list of data that is asked for, and where the next one is.
    fn page(&self, request: &Request, files: &BTreeMap<String, Stored>) -> (String, Option<String>) {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        assert!(query.contains("recursive=true"), "{query}");
        let from = query.split('&').find_map(|part| part.strip_prefix("cursor=")?.parse().ok()).unwrap_or(0);
        let all = files.iter().filter_map(|(path, stored)| Some((path.strip_prefix("datasets/")?, stored)));
        let all: Vec<(&str, &Stored)> = all.collect();
        let of_file = |(path, stored): &(&str, &Stored)| {
            let size = stored.content.len();
            format!(r#"{{"type":"file","oid":"0123","size":{size},"path":"{path}","lfs":null}}"#)
        };
        let folder = r#"{"type":"directory","oid":"4567","size":0,"path":"folder"}"#.to_string();
        let page: Vec<String> = all.iter().skip(from).take(PAGE).map(of_file).chain([folder]).collect();
        let host = &request.headers["host"];
        let next = from + PAGE;
        let next =
            (next < all.len()).then(|| format!("<http://{host}{path}?recursive=true&cursor={next}>; rel=\"next\""));
        (format!("[{}]", page.join(",")), next)
    }

    fn content(&self, request: &Request) -> Answer {
        let mut behaviour = self.behaviour.lock().unwrap();
        if let Some(status) = behaviour.content_statuses.pop_front() {
            return (status, Vec::new(), b"a page about the error".to_vec());
        }
        let file = request.path.split('?').next().unwrap_or_default().trim_start_matches('/');
        let Some(stored) = behaviour.files.get(file) else { return (404, Vec::new(), Vec::new()) };
        let mut content = stored.content.clone();
        if behaviour.altered {
            let middle = content.len() / 2;
            content[middle] ^= 1;
        }
        let range = request.headers.get("range").filter(|_| !behaviour.ignores_ranges);
        let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match from {
            Some(from) if from < content.len() => {
                let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
                (206, header("Content-Range", &range), content.split_off(from))
            }
            Some(_) => (416, Vec::new(), Vec::new()),
            None => (200, Vec::new(), content),
        }
    }
}

fn is_content(request: &Request) -> bool {
    request.to_content && request.method == "GET"
}

fn header(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_string(), value.to_string())]
}
