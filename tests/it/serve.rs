//! `harness serve`: the binary on a free port, asked over plain sockets.

use crate::cli::{Bench, assert_contains};
use crate::stored::{Results, first};
use assert_cmd::cargo::CommandCargoExt;
use metaaug::store::Store;
use metaaug::store::live::{Current, LIVE_FORMAT, Live};
use metaaug::store::record::Status;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that is killed at the end of its test.
struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut command = Command::cargo_bin("harness").unwrap();
        command.current_dir(folder).args(["serve", "--port", "0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split("127.0.0.1:").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
        Self { process, port }
    }

    /// A connection that does not wait for an answer for ever.
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// The head and the body of the answer.
    fn ask(&self, head: &str) -> (String, String) {
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_string(), body.to_string())
    }

    fn get(&self, path: &str) -> (String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", self.port))
    }
}

fn results() -> Results {
    let results = Results::new();
    let mut cell = results.cell("qdrop", "W2A2", 0);
    cell.variant = Some("<script>alert(1)".into());
    let record = results.record("made", &cell, &first(80, 100));
    results.store(&record, &first(80, 100));
    let mut failed = results.record("made", &results.cell("rtn", "W2A2", 0), &[true]);
    (failed.status, failed.error, failed.metrics) = (Status::Failed, Some("<b>why</b>".into()), None);
    results.store(&failed, &[]);
    results
}

#[test]
fn pages_are_served_to_this_machine_alone() {
    let results = results();
    let server = Server::start(results.path().parent().unwrap());
    let (head, body) = server.get("/");
    assert_contains(
        &head,
        &["200 OK", "Content-Security-Policy: default-src 'none'", "nosniff", "text/html; charset=utf-8", "no-store"],
    );
    assert_contains(&body, &["/experiments/made", "not running"]);
    let (_, body) = server.get("/experiments/made");
    assert_contains(&body, &["1 done", "1 failed", "80.00", "&lt;script&gt;", "&lt;b&gt;why"]);
    assert!(!body.contains("<script>") && !body.contains("<b>why"), "{body}");
    let run =
        body.split("href=\"").find_map(|link| link.split('"').next().filter(|link| link.contains("/runs/"))).unwrap();
    let (head, body) = server.get(run);
    assert_contains(&head, &["200 OK"]);
    assert_contains(&body, &["drop-inside", "SHA-256 aaaa", "&lt;script&gt;"]);
    assert!(!body.contains("<script>"), "{body}");

    let (head, body) = server.get("/runs.json?filter=method%28qdrop%29");
    assert_contains(&head, &["200 OK", "Content-Type: application/json", "nosniff", "no-store"]);
    assert_contains(&body, &["\"<script>alert(1)\"", "\"is_configuration\":true"]);
    let (head, body) = server.get("/compare?filter=method(qdrop)");
    assert_contains(&head, &["200 OK", "script-src 'self'"]);
    assert!(!body.contains("qdrop)"), "what a URL says does not get into the page: {body}");

    // Sent as they are: no client in between that would tidy them up.
    std::fs::write(results.path().parent().unwrap().join("report.html"), "outside").unwrap();
    for path in [
        "/nothing",
        "/../grid.toml",
        "/experiments/../report",
        "/experiments/..%2f/report",
        "/experiments/made/runs/../../../grid.toml",
    ] {
        let (head, body) = server.get(path);
        assert!(head.starts_with("HTTP/1.1 404") && !body.contains("outside"), "{path}: {head}");
    }
    let (head, _) = server.ask("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 421"), "{head}");
    let (head, _) = server.ask("DELETE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 405") && head.contains("Allow: GET, HEAD"), "{head}");
    let (head, body) = server.ask("HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && body.is_empty(), "{head}");

    let taken = results.harness(&["serve", "--port", &server.port.to_string()]);
    assert_eq!(taken.code, 2);
    assert_contains(&taken.stderr, &[&format!("port {} is taken", server.port), "--port 0"]);
    let nowhere = results.harness(&["serve", "--results", "nowhere"]);
    assert_eq!(nowhere.code, 4, "{}", nowhere.stderr);
}

#[test]
fn a_running_grid_is_shown_until_its_lock_is_gone() {
    let results = results();
    let server = Server::start(results.path().parent().unwrap());
    let store = Store::new(&results.path(), "made");
    let lock = store.lock().unwrap();
    let live = Live {
        format: LIVE_FORMAT,
        process: 1,
        started_unix_s: 0,
        updated_unix_s: 0,
        stored: 1,
        pending: 7,
        done: 2,
        failed: 1,
        current: Some(Current { run_id: "cell-<i>".into(), evaluated: Some((5, 9)), ..Current::default() }),
        beside: vec![Current { run_id: "cell-2".into(), evaluated: Some((6, 9)), ..Current::default() }],
    };
    store.write_live(&live).unwrap();
    let (_, body) = server.get("/");
    assert_contains(
        &body,
        &["Running:", "3 of 7", "cell-&lt;i&gt;", "evaluation, 5 of 9 images", "cell-2", "evaluation, 6 of 9 images"],
    );
    let state: serde_json::Value = serde_json::from_str(&server.get("/state.json").1).unwrap();
    assert_eq!(state[0]["live"]["current"]["run_id"], "cell-<i>");
    assert_contains(&server.get("/experiments/made").1, &["running, 3 of 7 cells finished"]);
    drop(lock);
    assert_contains(&server.get("/experiments/made").1, &["not running"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_it() {
    let results = results();
    let mut server = Server::start(results.path().parent().unwrap());
    let id = server.process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(server.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_grid_leaves_logs_and_takes_its_state_back() {
    let bench = Bench::new(
        "name = \"tiny\"\n[base]\narch = \"resnet20\"\nbits = \"W4A4\"\nmethod = \"genie-m\"\ncalib-images = 32\n\
         recipe = { iterations = 2 }\n",
    );
    let end = bench.harness(&["run", "grid.toml", "--quiet"]);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
    let runs = bench.path().join("results/tiny/runs");
    assert!(!runs.join(".live/state.json").exists());
    let run = std::fs::read_dir(&runs).unwrap().map(|entry| entry.unwrap().path());
    let [run] = &run.filter(|path| path.join("record.json").exists()).collect::<Vec<_>>()[..] else {
        panic!("one run")
    };
    let log = std::fs::read_to_string(run.join("log.txt")).unwrap();
    assert_contains(&log, &["unit 1/", "weights 2/2, loss ", "evaluation of 10000 images", "done: test "]);
    assert_contains(
        &std::fs::read_to_string(bench.path().join("results/tiny/report.html")).unwrap(),
        &["evaluation of 10000 images"],
    );
}

/// None of what these clients send or leave undone ends the server, or keeps it from answering others.
#[test]
fn a_client_takes_nothing_from_others() {
    let results = results();
    let mut server = Server::start(results.path().parent().unwrap());
    let send = |text: &str| {
        let mut stream = server.connect();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9223372036854775807\r\n\r\n", "413"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", "413"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", "413"),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9223372036854775807\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "421"),
        ("GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", "400"),
        ("GET /\u{0} HTTP/1.1\r\n\r\n", "400"),
        ("\r\n\r\n\u{1}\u{2}\u{3}\r\n\r\n", "400"),
    ] {
        let (head, _) = server.ask(request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {head}");
    }
    // A head without an end: the server stops reading it.
    let mut endless = send("GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    let part = vec![b'x'; 1 << 16];
    let sent = (0..1024).take_while(|_| endless.write_all(&part).is_ok()).count();
    assert!(sent < 1024, "all of a head of 64 MiB was taken");
    // Answers that nobody reads, larger than what the system holds of them; and connections on which nothing is asked.
    std::fs::write(results.path().join("made/report.html"), vec![b'x'; 1 << 26]).unwrap();
    let unread: Vec<TcpStream> =
        (0..8).map(|_| send("GET /experiments/made/report HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    let idle: Vec<TcpStream> = (0..500).map(|_| server.connect()).collect();
    assert!(server.get("/").0.starts_with("HTTP/1.1 200"));
    assert_contains(&server.get("/experiments/made").1, &["1 done", "1 failed"]);
    drop((unread, idle));
    assert!(server.process.try_wait().unwrap().is_none());
}
