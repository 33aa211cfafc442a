//! Weights from the Hub: its protocol, spoken by a server on loopback, and its cache.

mod data;
mod server;

use crate::cli::{Bench, Ended, assert_contains, ended};
use metaaug::disk::sha256;
use metaaug::embedded;
use metaaug::error::Result;
use metaaug::hub::{Fetched, Hub, HubEvent, HubFile, HubSettings, Token};
use server::{COMMIT, REPO, Request, TOKEN, TestHub};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const GRID: &str = r#"
name = "tiny"
[base]
arch = "resnet20"
weights = "hub:someone/resnet20/model.safetensors"
bits = "W8A8"
method = "rtn"
calib-images = 32
"#;
const WEIGHTS: &str = "hub:someone/resnet20/model.safetensors";
const CONFIG: &[u8] = br#"{"architecture": "resnet20"}"#;

fn weights() -> &'static [u8] {
    embedded::read("resnet20-fashion-mnist/model.safetensors").unwrap().0
}

fn test_hub() -> TestHub {
    TestHub::start(&[("model.safetensors", weights())], &[("config.json", CONFIG)])
}

/// Runs the binary with the Hub's variables; the cache is `folder/hf/hub`.
fn harness(bench: &Bench, hub: &TestHub, args: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = bench.command(args);
    for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command.env("HF_HOME", bench.path().join("hf")).env("HF_ENDPOINT", hub.endpoint());
    command.envs(variables.iter().copied());
    ended(command)
}

/// A cache of its own, and what was told of it.
struct Client {
    hub: Hub,
    folder: tempfile::TempDir,
    events: Arc<Mutex<Vec<String>>>,
}

impl Client {
    fn new(server: &TestHub) -> Self {
        Self::at(&server.endpoint())
    }

    fn at(endpoint: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::with(folder, endpoint)
    }

    fn with(folder: tempfile::TempDir, endpoint: &str) -> Self {
        let settings = HubSettings {
            endpoint: endpoint.to_string(),
            cache: folder.path().join("hub"),
            token: Token::new(TOKEN),
            offline: false,
        };
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = events.clone();
        let observe = move |event: HubEvent| seen.lock().unwrap().push(format!("{event:?}"));
        Self { hub: Hub::new(settings, Arc::new(observe)), folder, events }
    }

    fn fetch(&self, name: &str) -> Result<Fetched> {
        self.hub.fetch(&name.parse().unwrap())
    }

    fn problem(&self, name: &str) -> String {
        self.fetch(name).unwrap_err().to_string()
    }

    fn repo(&self) -> PathBuf {
        self.folder.path().join("hub/models--someone--resnet20")
    }

    /// All files under the folder.
    fn files(&self) -> Vec<String> {
        files(self.folder.path())
    }

    /// That there is nothing which looks like content.
    fn assert_nothing_stored(&self) {
        let stored = self.files().into_iter().filter(|path| path.contains("/blobs/") || path.contains("/snapshots/"));
        assert_eq!(stored.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(files(&entry)),
            false => found.push(entry.display().to_string()),
        }
    }
    found.sort();
    found
}

fn transfers(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|request| request.to_content && request.method == "GET").collect()
}

#[test]
fn a_grid_with_weights_on_the_hub_is_fetched_once_and_runs_offline() {
    let (bench, server) = (Bench::new(GRID), test_hub());
    server.behaviour().gated = true;
    let run = harness(&bench, &server, &["fetch", "grid.toml"], &[("HF_TOKEN", TOKEN)]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let sum = sha256(&[weights()]);
    let name = format!("hub:someone/resnet20@{COMMIT}/model.safetensors");
    assert_contains(&run.stdout, &[&format!("{sum}  {name}"), &format!("hub:someone/resnet20@{COMMIT}/config.json")]);
    assert_contains(&run.stderr, &[&format!("downloaded {name}")]);

    let requests = server.requests();
    assert_eq!(transfers(&requests).len(), 1);
    for request in &requests {
        let sent = request.headers.get("authorization").map(String::as_str);
        let expected = (!request.to_content).then_some("Bearer hf_thisIsTheSecret");
        assert_eq!(sent, expected, "{} {}", request.method, request.path);
    }

    let repo = bench.path().join("hf/hub/models--someone--resnet20");
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    let pointer = repo.join("snapshots").join(COMMIT).join("model.safetensors");
    assert_eq!(std::fs::canonicalize(&pointer).unwrap(), std::fs::canonicalize(repo.join("blobs").join(&sum)).unwrap());
    assert!(!std::fs::read_link(&pointer).unwrap().is_absolute(), "a cache can be copied");

    // What is there is asked for by commit alone, and not even that where it is forbidden.
    let again = harness(&bench, &server, &["fetch", "grid.toml"], &[("HF_TOKEN", TOKEN)]);
    assert_eq!((again.code, again.stdout), (0, run.stdout));
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    server.behaviour().api_refusal = Some((500, ""));
    let offline = [("HF_HUB_OFFLINE", "1"), ("HF_TOKEN", TOKEN)];
    let done = harness(&bench, &server, &["run", "grid.toml"], &offline);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(server.requests().is_empty());

    let mut records = files(&bench.path().join("results")).into_iter().filter(|path| path.ends_with("record.json"));
    let record = std::fs::read_to_string(records.next_back().unwrap()).unwrap();
    assert_contains(&record, &[&format!(r#""weights_source": "{name}""#), &format!(r#""weights": "{sum}""#)]);
    let written = files(bench.path())
        .into_iter()
        .filter(|path| std::fs::read(path).unwrap().windows(TOKEN.len()).any(|text| text == TOKEN.as_bytes()));
    assert_eq!(written.collect::<Vec<_>>(), Vec::<String>::new(), "the token is in a file");
    for text in [again.stderr, run.stderr, done.stderr, done.stdout] {
        assert!(!text.contains(TOKEN), "{text}");
    }
}

#[test]
fn a_model_card_names_the_network_on_the_hub_that_it_was_made_from_and_its_licence() {
    let bench = Bench::new(GRID);
    let small: [(&str, &[u8]); 2] = [("config.json", CONFIG), ("README.md", b"---\nlicense: mit\n---\n# A network\n")];
    let server = TestHub::start(&[("model.safetensors", weights())], &small);
    assert_eq!(harness(&bench, &server, &["run", "grid.toml", "--save-model"], &[]).code, 0);
    let export = ["export", "--hub", "out", "resnet20-w8a8-rtn-s0"];
    let card = || std::fs::read_to_string(bench.path().join("out/README.md")).unwrap();
    let end = harness(&bench, &server, &export, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    assert_contains(&end.stderr, &["warning: the card names no licence, since that of hub:someone/resnet20@main"]);
    assert_contains(
        &card(),
        &["---\nbase_model: \"someone/resnet20\"\nbase_model_relation: quantized\nlibrary_name: "],
    );
    let end = harness(&bench, &server, &export, &[]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    assert_contains(&card(), &["---\nlicense: mit\nbase_model: \"someone/resnet20\"\n"]);
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let (server, name) = (test_hub(), WEIGHTS);
    let client = Client::new(&server);
    server.behaviour().cuts = [10_000, 20_000].into();
    let fetched = client.fetch(name).unwrap();
    assert_eq!(fetched.read().unwrap().0, weights());
    let requests = server.requests();
    let ranges: Vec<_> = transfers(&requests).iter().map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [None, Some("bytes=10000-".to_string()), Some("bytes=30000-".to_string())]);
}

#[test]
fn what_another_process_left_is_used_and_never_looks_complete() {
    let server = test_hub();
    let first = Client::new(&server);
    server.behaviour().cuts = [50_000, 0, 0, 0, 0].into();
    let problem = first.problem(WEIGHTS);
    assert_contains(
        &problem,
        &["hub:someone/resnet20@main/model.safetensors", "after 50000 bytes", "goes on from there"],
    );
    let sum = sha256(&[weights()]);
    let left: Vec<String> = first.files().into_iter().filter(|path| !path.ends_with(".lock")).collect();
    assert_eq!(left, [first.repo().join(format!("blobs/{sum}.incomplete")).display().to_string()]);

    server.behaviour().cuts.clear();
    server.requests();
    let second = Client::with(first.folder, &server.endpoint());
    assert_eq!(second.fetch(WEIGHTS).unwrap().read().unwrap().0, weights());
    let requests = server.requests();
    assert_eq!(transfers(&requests)[0].headers["range"], "bytes=50000-");
    assert_contains(&second.events.lock().unwrap()[0], &["Received", "have: 50000"]);
    assert!(!second.repo().join(format!("blobs/{sum}.incomplete")).exists());
}

#[test]
fn a_beginning_of_something_else_is_not_trusted() {
    for ignores_ranges in [false, true] {
        for length in [1000, weights().len(), weights().len() + 1] {
            let server = test_hub();
            server.behaviour().ignores_ranges = ignores_ranges;
            let client = Client::new(&server);
            std::fs::create_dir_all(client.repo().join("blobs")).unwrap();
            let partial = client.repo().join(format!("blobs/{}.incomplete", sha256(&[weights()])));
            std::fs::write(partial, vec![7; length]).unwrap();
            assert_eq!(client.fetch(WEIGHTS).unwrap().read().unwrap().0, weights(), "{ignores_ranges} {length}");
        }
    }
}

#[test]
fn content_that_was_not_announced_is_not_stored() {
    let server = test_hub();
    server.behaviour().altered = true;
    let client = Client::new(&server);
    assert_contains(&client.problem(WEIGHTS), &["SHA-256", &sha256(&[weights()]), "was announced"]);
    client.assert_nothing_stored();
    // A page about an error is not content either.
    server.behaviour().altered = false;
    for status in [403, 404] {
        server.behaviour().content_statuses = [status].into();
        client.problem(WEIGHTS);
        client.assert_nothing_stored();
    }
    // The next answer may be better.
    server.behaviour().content_statuses = [503, 429].into();
    assert_eq!(client.fetch(WEIGHTS).unwrap().read().unwrap().0, weights());
}

#[test]
fn damage_in_the_cache_is_noticed_and_repaired_as_the_message_says() {
    let server = test_hub();
    let client = Client::new(&server);
    let fetched = client.fetch(WEIGHTS).unwrap();
    let blob = std::fs::canonicalize(&fetched.path).unwrap();
    std::fs::write(&blob, &weights()[1..]).unwrap();
    let problem = client.fetch(WEIGHTS).unwrap().read().unwrap_err().to_string();
    assert_contains(&problem, &[blob.to_str().unwrap(), "is damaged", "remove it"]);
    std::fs::remove_file(&blob).unwrap();
    assert_eq!(client.fetch(WEIGHTS).unwrap().read().unwrap().0, weights());
}

#[test]
fn refusals_say_what_to_do() {
    let (bench, server) = (Bench::new(GRID), test_hub());
    server.behaviour().gated = true;
    let gated = harness(&bench, &server, &["fetch", "grid.toml"], &[]);
    assert_eq!(gated.code, 96);
    let page = format!("{}/someone/resnet20", server.endpoint());
    assert_contains(&gated.stderr, &["error: hub:someone/resnet20@main/model.safetensors: gated", &page, "HF_TOKEN"]);

    let refused = |status, code, message| {
        server.behaviour().refusal = Some((status, code, message));
        harness(&bench, &server, &["fetch", "grid.toml"], &[("HF_TOKEN", TOKEN)]).stderr
    };
    assert_contains(&refused(403, "GatedRepo", "not in the list"), &["gated: accept the licence", "not in the list"]);
    assert_contains(&refused(404, "EntryNotFound", ""), &["not found", "no file model.safetensors"]);
    let repeated = refused(401, "", "Bearer hf_thisIsTheSecret is not valid");
    assert_contains(&repeated, &["your token is not valid", "Bearer *** is not valid"]);
    assert!(!repeated.contains(TOKEN), "{repeated}");

    let client = Client::new(&server);
    server.behaviour().refusal = None;
    assert_contains(&client.problem("hub:someone/resnet20@v9/m.bin"), &["no branch, tag or commit v9"]);
    assert_contains(&client.problem("hub:someone/else/m.bin"), &["not found, or your token"]);
    client.assert_nothing_stored();
}

#[test]
fn without_a_network_the_cache_counts_and_else_the_way_out_is_said() {
    let server = test_hub();
    let first = Client::new(&server);
    let stored = first.fetch(WEIGHTS).unwrap();
    // Nobody listens on a port that was just given back.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{nowhere}");
    let cached = Client::with(first.folder, &endpoint);
    assert_eq!(cached.fetch(WEIGHTS).unwrap(), stored);
    assert_contains(&cached.events.lock().unwrap()[0], &["Unreachable", COMMIT]);

    let bench = Bench::new(GRID);
    let mut command = bench.command(&["run", "grid.toml"]);
    command.env("HF_HOME", bench.path().join("hf")).env("HF_ENDPOINT", &endpoint).env_remove("HF_HUB_CACHE");
    let run = ended(command);
    assert_eq!(run.code, 96);
    let cache = bench.path().join("hf/hub").display().to_string();
    assert_contains(&run.stderr, &[&format!("cannot reach {endpoint}"), "run `harness fetch FILE`", &cache]);
    let offline = harness(&bench, &server, &["run", "grid.toml"], &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(offline.code, 96);
    assert_contains(&offline.stderr, &["HF_HUB_OFFLINE is set", "run `harness fetch FILE`", &cache]);
}

#[test]
fn a_repository_without_a_description_is_remembered_as_such() {
    let server = TestHub::start(&[("model.safetensors", weights())], &[]);
    let client = Client::new(&server);
    let weights = client.fetch(WEIGHTS).unwrap();
    assert_eq!(client.hub.fetch_if_there(&weights.file.config()).unwrap(), None);
    assert!(client.repo().join(".no_exist").join(COMMIT).join("config.json").exists());
    server.requests();
    assert_eq!(client.hub.fetch_if_there(&weights.file.config()).unwrap(), None);
    assert!(server.requests().is_empty());
}

#[test]
fn two_processes_download_once() {
    let (bench, server) = (Bench::new(GRID), test_hub());
    server.behaviour().pause = Duration::from_millis(1500);
    let outputs: Vec<Ended> = std::thread::scope(|scope| {
        let run = || scope.spawn(|| harness(&bench, &server, &["fetch", "grid.toml"], &[]));
        [run(), run()].map(|thread| thread.join().unwrap()).into()
    });
    assert!(outputs.iter().all(|output| output.code == 0), "{}{}", outputs[0].stderr, outputs[1].stderr);
    assert_eq!(outputs[0].stdout, outputs[1].stdout);
    assert_eq!(transfers(&server.requests()).len(), 1);
    assert!(outputs.iter().any(|output| output.stderr.contains("waiting for another process")));
}

#[test]
fn nothing_is_written_outside_the_cache() {
    for (etag, commit) in [
        (Some("../../../outside"), None),
        (Some("/tmp/outside"), None),
        (Some("..\\\\outside"), None),
        (None, Some("../../../outside")),
        (None, Some("main")),
    ] {
        let server = test_hub();
        (server.behaviour().etag, server.behaviour().commit) = (etag, commit);
        let client = Client::new(&server);
        client.problem(WEIGHTS);
        client.problem(&format!("hub:someone/resnet20@{COMMIT}/model.safetensors"));
        client.assert_nothing_stored();
        assert!(client.files().is_empty(), "{:?}", client.files());
    }
    let bench = Bench::new(&GRID.replace("someone/resnet20/", "someone/resnet20@main/../"));
    let run = bench.harness(&["plan", "grid.toml"]);
    assert_eq!(run.code, 2);
    assert_contains(&run.stderr, &["cannot be a file name on the Hub"]);
}

#[test]
fn the_two_servers_are_different_hosts() {
    // Otherwise the test of the token's way would show nothing.
    let server = test_hub();
    assert!(server.endpoint().starts_with("http://127.0.0.1:"));
    let client = Client::new(&server);
    let name: HubFile = WEIGHTS.parse().unwrap();
    assert_eq!(name.repo().name(), REPO);
    client.hub.fetch(&name).unwrap();
    let requests = server.requests();
    assert!(transfers(&requests)[0].headers["host"].starts_with("localhost:"));
}

/// Serves for `scripts/check_hub_cache.py`, which names a file to write the address to, until standard input ends.
#[test]
#[ignore = "a server for scripts/check_hub_cache.py"]
fn serve() {
    let server = test_hub();
    std::fs::write(std::env::var_os("HUB_ADDRESS_FILE").unwrap(), server.endpoint()).unwrap();
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}
