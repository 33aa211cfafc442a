//! Runs told to an MLflow server: while they are made, from what is stored, and where the server misbehaves.

mod server;

use crate::cli::{Bench, Ended, assert_contains, ended};
use crate::stored::{Results, first};
use metaaug::store::record::{Record, Status};
use metaaug::store::{Artefacts, ModelFiles, Store, read_traces};
use ptq::recon::trace::UnitTrace;
use server::{TestRun, TestServer};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const GRID: &str = r#"
name = "tiny"
[track]
[base]
arch = "resnet20"
bits = "W4A4"
calib-images = 32
method = "rtn"
"#;

/// Names of MLflow's variables that a machine may have set.
const VARIABLES: [&str; 5] = [
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
];

/// `harness ARGS` beside `variables`.
fn harness(bench: &Bench, args: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = bench.command(args);
    for name in VARIABLES {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    ended(command)
}

fn records(bench: &Bench) -> Vec<Record> {
    Store::new(&bench.path().join("results"), "tiny").scan().unwrap().records
}

/// Compares what the server holds with what is stored in `folder`.
fn assert_same(run: &TestRun, record: &Record, folder: &Path) {
    assert_eq!(run.status, if record.status == Status::Done { "FINISHED" } else { "FAILED" }, "{run:?}");
    assert_eq!(run.tags["harness.run_id"], record.run_id);
    assert_eq!(run.params["bits"], record.cell.bits.to_string());
    let end_ms = ((record.provenance.started_unix_s as f64 + record.cost.wall_s) * 1000.0).round() as u64;
    assert_eq!(run.end_time, end_ms);
    assert!(run.start_time.abs_diff(record.provenance.started_unix_s * 1000) < 60_000);
    if let Some(metrics) = &record.metrics {
        assert_eq!(run.history("test_top1"), [(0, metrics.test_top1)]);
    }
    for trace in read_traces(folder).unwrap() {
        let values: Vec<(u64, f64)> = trace.iterations.iter().map(|step| *step as u64).zip(trace.loss).collect();
        assert_eq!(run.history(&format!("loss/{}/{}", trace.unit, trace.phase)), values);
    }
    assert_eq!(run.artefacts["record.json"], std::fs::read(folder.join("record.json")).unwrap());
    assert!(run.tags.contains_key("harness.export_sha256"));
}

fn assert_all_same(server: &TestServer, bench: &Bench) {
    let (runs, records) = (server.active(), records(bench));
    assert_eq!(runs.len(), records.len());
    for (run, record) in runs.iter().zip(&records) {
        assert_same(run, record, &bench.path().join("results/tiny/runs").join(&record.run_id));
    }
}

#[test]
fn a_grid_is_told_as_it_is_stored_and_sent_again_as_nothing() {
    let grid = GRID.replace("method = \"rtn\"", "recipe = { iterations = 3 }\n[axes]\nmethod = [\"rtn\", \"genie-m\"]")
        + "[[include]]\nmethod = \"rtn\"\nweights = \"file:gone.safetensors\"\n";
    let (bench, server) = (Bench::new(&grid), TestServer::start());
    let url = server.url();
    let token = [("MLFLOW_TRACKING_URI", url.as_str()), ("MLFLOW_TRACKING_TOKEN", "t0ken")];
    let run = harness(&bench, &["run", "grid.toml"], &token);
    assert_eq!(run.code, 100, "{}", run.stderr);
    assert_contains(&run.stdout, &[&format!("MLflow: 3 runs sent to {url}\n")]);
    assert!(server.state().requests.iter().all(|(_, by)| by.as_deref() == Some("Bearer t0ken")));
    assert_eq!(server.state().experiments, ["tiny"]);
    assert_all_same(&server, &bench);
    let failed = server.active().into_iter().find(|run| run.status == "FAILED").unwrap();
    assert_contains(&failed.tags["harness.error"], &["gone.safetensors"]);
    assert!(bench.path().join("results/tiny/runs/.tracking/unsent").read_dir().unwrap().next().is_none());

    let before: Vec<_> = server.active().into_iter().map(|run| (run.id, run.metrics, run.tags)).collect();
    let end = harness(&bench, &["export", "grid.toml", "--mlflow", &url], &[]);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
    assert_contains(&end.stdout, &[&format!("MLflow: 0 runs written to {url}, 3 unchanged")]);
    assert!(before == server.active().into_iter().map(|run| (run.id, run.metrics, run.tags)).collect::<Vec<_>>());
    // What is tried again takes the place of what failed; nothing holds the token.
    let run = harness(&bench, &["run", "grid.toml", &format!("--track={url}"), "--quiet"], &[]);
    assert_eq!((run.code, run.stdout.as_str()), (100, ""), "{}", run.stderr);
    assert_all_same(&server, &bench);
    assert_eq!(server.state().runs.len(), 4);
    let holds =
        std::process::Command::new("grep").args(["-r", "t0ken", "."]).current_dir(bench.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&holds.stdout), "");
}

/// Has a server do something wrong; the address is another one's.
type Misbehaviour = fn(&mut server::State, &str);

#[test]
fn a_server_that_misbehaves_costs_one_warning_and_no_run() {
    let (bench, server, other) = (Bench::new(GRID), TestServer::start(), TestServer::start());
    let url = server.url();
    let variables = [
        ("MLFLOW_TRACKING_URI", url.as_str()),
        ("MLFLOW_TRACKING_USERNAME", "me"),
        ("MLFLOW_TRACKING_PASSWORD", "s3cret"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "1"),
    ];
    let cases: [(&str, Misbehaviour, &str); 5] = [
        ("401", |state, _| state.refusal = Some(401), "set MLFLOW_TRACKING_TOKEN"),
        ("413", |state, _| state.largest_body = Some(1), "takes no request of this size"),
        ("500", |state, _| state.refusal = Some(500), "has a problem, status 500 (TEST: as the test wants)"),
        ("silence", |state, _| state.is_silent = true, "does not answer"),
        ("redirect", |state, other| state.redirect = Some(other.to_string()), "which is not asked"),
    ];
    for (name, misbehave, said) in cases {
        *server.state() = server::State::default();
        misbehave(&mut server.state(), &other.url());
        let run = harness(&bench, &["run", "grid.toml", "--fresh"], &variables);
        assert_eq!(run.code, 0, "{name}: {}", run.stderr);
        assert_eq!(run.stderr.matches("warning").count(), 1, "{name}: {}", run.stderr);
        assert_contains(&run.stderr, &[said, "the grid goes on, and `harness export grid.toml --mlflow"]);
        assert_contains(&run.stdout, &["0 runs sent", "1 left"]);
        assert!(!run.stderr.contains("s3cret") && records(&bench).len() == 1);
        let end = harness(&bench, &["export", "grid.toml", "--mlflow", &url], &variables);
        assert_eq!(end.code, if name == "413" { 100 } else { 96 }, "{name}: {}", end.stderr);
        assert_eq!(end.stderr.lines().count(), 1, "{}", end.stderr);
        assert_contains(&end.stderr, &[said]);
        // Whatever was half of it there is made whole.
        {
            let mut state = server.state();
            (state.refusal, state.largest_body, state.redirect, state.is_silent) = (None, None, None, false);
        }
        let end = harness(&bench, &["export", "grid.toml", "--mlflow", &url], &variables);
        assert_eq!((end.code, end.stderr.as_str()), (0, ""), "{name}");
        assert_all_same(&server, &bench);
    }
    // The credentials stay home.
    assert!(other.state().requests.is_empty());
    let by = server.state().requests[0].1.clone().unwrap();
    assert!(by.starts_with("Basic "));
    // What a server owes from before comes with the next grid, though nothing is left to run.
    server.state().refusal = Some(503);
    assert_eq!(harness(&bench, &["run", "grid.toml", "--fresh"], &variables).code, 0);
    server.state().refusal = None;
    let run = harness(&bench, &["run", "grid.toml"], &variables);
    assert_contains(&run.stdout, &["MLflow: 1 runs sent"]);
    assert_all_same(&server, &bench);
}

#[test]
fn a_run_is_stored_while_the_server_is_silent_and_sent_when_it_speaks() {
    let (bench, server) = (Bench::new(GRID), TestServer::start());
    server.state().is_silent = true;
    let url = format!("--track={}", server.url());
    std::thread::scope(|scope| {
        let run = scope.spawn(|| harness(&bench, &["run", "grid.toml", &url], &[]));
        while !bench.path().join("results/tiny/report.html").exists() {
            assert!(!run.is_finished(), "{}", run.join().unwrap().stderr);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(server.state().runs.is_empty() && records(&bench).len() == 1);
        server.state().is_silent = false;
        let end = run.join().unwrap();
        assert_eq!((end.code, end.stderr.contains("warning")), (0, false), "{}", end.stderr);
    });
    assert_all_same(&server, &bench);
}

#[cfg(unix)]
#[test]
fn runs_that_are_killed_go_on_on_the_server_too() {
    let grid =
        GRID.replace("W4A4", "W2A2").replace("calib-images = 32", "calib-images = 64\nrecipe = { iterations = 40 }");
    let bench = Bench::new(&grid.replace("method = \"rtn\"", "[axes]\nmethod = [\"brecq\", \"qdrop\"]"));
    let server = TestServer::start();
    let url = format!("--track={}", server.url());
    let args = ["run", "grid.toml", "--quiet", &url];
    for signal in ["-KILL", "-INT"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_harness"));
        command.current_dir(bench.path()).args(args);
        command.env("HARNESS_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
        let mut child = command.spawn().unwrap();
        let before: usize = server.active().iter().map(|run| run.metrics.len()).sum();
        while server.active().iter().map(|run| run.metrics.len()).sum::<usize>() == before
            && child.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        child.wait().unwrap();
        let last = server.active().into_iter().find(|run| !run.tags.contains_key("harness.export_sha256")).unwrap();
        assert_eq!(last.status, if signal == "-KILL" { "RUNNING" } else { "KILLED" });
        assert!(!last.metrics.is_empty() && last.params["bits"] == "W2A2");
    }
    let end = harness(&bench, &args, &[]);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
    assert_all_same(&server, &bench);
    assert_eq!(server.state().runs.len(), 2);
}

/// Two stored runs, of which one has losses of a unit with a name that nobody would choose.
fn results() -> Results {
    let results = Results::new();
    let record = results.record("made", &results.cell("qdrop", "W2A2", 3), &first(80, 100));
    let mut trace = UnitTrace::new(&"a/\"quote\" ü ".repeat(25), "meta");
    (trace.iterations, trace.loss, trace.wall_s) = (vec![1, 4], vec![0.5, f64::NAN], 2.0);
    let store = Store::new(&results.path(), "made");
    let lock = store.lock().unwrap();
    store.write_run(&record, "a cell", &Artefacts { traces: vec![trace], ..Artefacts::default() }).unwrap();
    drop(lock);
    let mut failed = results.record("made", &results.cell("rtn", "W4A4", 0), &[true]);
    (failed.status, failed.error, failed.metrics) = (Status::Failed, Some("\"why\": ".repeat(2000)), None);
    results.store(&failed, &[]);
    results
}

#[test]
fn stored_runs_are_sent_once_whatever_they_are_called_and_whatever_gets_lost() {
    let (results, server) = (results(), TestServer::start());
    let url = server.url();
    let name = "it's \"a/b\" ü ".replace('/', "\u{2215}").repeat(12);
    std::fs::rename(results.path().join("made"), results.path().join(&name)).unwrap();
    let send = || results.harness(&["export", "--mlflow", &url]);
    // Answers that get lost, each at another place, and then none.
    for _ in 0..6 {
        server.state().lost_answers = 3;
        send();
    }
    server.state().lost_answers = 0;
    let end = send();
    assert_eq!((end.code, end.stderr.as_str()), (0, ""), "{}", end.stdout);
    assert_eq!(server.state().experiments, std::slice::from_ref(&name));
    let runs = server.active();
    assert_eq!(runs.iter().map(|run| run.status.as_str()).collect::<Vec<_>>(), ["FINISHED", "FAILED"]);
    let key = runs[0].metrics.iter().find(|(key, ..)| key.starts_with("loss/")).unwrap().0.clone();
    assert!(key.len() < 120 && key.ends_with("/meta"), "{key}");
    let values: Vec<String> =
        runs[0].metrics.iter().filter(|(other, ..)| *other == key).map(|metric| metric.2.clone()).collect();
    assert_eq!(values, ["0.5", "\"NaN\""]);
    assert_eq!(runs[1].tags["harness.error"].chars().count(), 8000);
    assert_contains(&send().stdout, &["0 runs written", "2 unchanged"]);

    // What people say, here and there; a run that is made again takes over what they said there.
    server.state().runs.iter_mut().for_each(|run| drop(run.tags.insert("paper".into(), "table 1".into())));
    assert_eq!(results.harness(&["tag", "status(failed)", "odd"]).code, 0);
    assert_contains(&send().stdout, &["0 runs written", "2 unchanged"]);
    assert_eq!(server.active()[1].tags["harness.tags"], "odd");
    let mut again = results.record(&name, &results.cell("qdrop", "W2A2", 3), &first(90, 100));
    again.provenance.started_unix_s = 7;
    results.store(&again, &first(90, 100));
    assert_contains(&send().stdout, &["1 runs written", "1 unchanged"]);
    let runs = server.active();
    assert_eq!(
        (runs.len(), runs[0].history("test_top1"), runs[0].tags["paper"].as_str()),
        (2, vec![(0, 0.9)], "table 1")
    );
    // The same runs in another folder are other runs.
    let copied = Results::new();
    copied.store(&Record { experiment: name.clone(), ..again }, &first(90, 100));
    assert_contains(&copied.harness(&["export", "--mlflow", &url]).stdout, &["1 runs written"]);
    assert_eq!(server.active().len(), 3);
}

#[test]
fn what_is_too_large_is_divided_and_an_artefact_that_cannot_be_is_named() {
    let (results, server) = (results(), TestServer::start());
    let url = server.url();
    let send = || results.harness(&["export", "method(qdrop)", "--mlflow", &url]);
    server.state().largest_body = Some(1500);
    let end = send();
    assert_eq!(end.code, 100);
    assert_eq!(end.stderr.lines().count(), 1, "{}", end.stderr);
    assert_contains(
        &end.stderr,
        &["skipping resnet20-w2a2-qdrop-s3", "413 (artefact record.json, ", "raise the limit"],
    );
    let half = server.active().remove(0);
    assert!(half.status == "FINISHED" && half.params.len() > 20 && half.history("test_top1").len() == 1);
    server.state().largest_body = None;
    assert_eq!(send().code, 0);
    let whole = server.active();
    assert!(whole.len() == 1 && whole[0].id == half.id && whole[0].metrics == half.metrics);
}

#[test]
fn a_kept_network_goes_along_unless_the_server_takes_none_of_its_size() {
    let results = Results::new();
    let record = results.record("made", &results.cell("qdrop", "W2A2", 3), &first(80, 100));
    let store = Store::new(&results.path(), "made");
    let lock = store.lock().unwrap();
    let model = ModelFiles { config: "{}".into(), weights: vec![7; 100_000] };
    store.write_run(&record, "a cell", &Artefacts { model: Some(model), ..Artefacts::default() }).unwrap();
    drop(lock);
    let [taken, refused] = [None, Some(50_000)].map(|largest| {
        let server = TestServer::start();
        server.state().largest_body = largest;
        let end = results.harness(&["export", "--mlflow", &server.url()]);
        assert_eq!(end.code, 0, "{}", end.stderr);
        assert_contains(&end.stdout, &["1 runs written"]);
        (server.active().remove(0), end.stderr)
    });
    assert_eq!((taken.0.artefacts["model.safetensors"].len(), taken.1.as_str()), (100_000, ""));
    assert_eq!(taken.0.artefacts["config.json"], b"{}");
    assert!(
        !refused.0.artefacts.contains_key("model.safetensors") && refused.0.tags.contains_key("harness.export_sha256")
    );
    assert_contains(
        &refused.1,
        &["note: MLflow at ", "does not take the 100000 bytes of model.safetensors of resnet20-w2a2"],
    );
    assert_eq!(refused.1.lines().count(), 1, "{}", refused.1);
    assert_eq!(results.harness(&["export", "--mlflow", "out"]).code, 0);
    let mut copies = std::process::Command::new("find");
    copies.args(["out", "-size", "100000c"]).current_dir(results.path().parent().unwrap());
    assert_contains(&String::from_utf8(copies.output().unwrap().stdout).unwrap(), &["/artifacts/model.safetensors"]);
}

#[test]
fn runs_that_came_by_a_file_store_are_known_on_the_server() {
    let (results, server) = (results(), TestServer::start());
    let url = server.url();
    let send = || results.harness(&["export", "method(qdrop)", "--mlflow", &url]).stdout;
    assert_eq!(results.harness(&["export", "method(qdrop)", "--mlflow", "a store"]).code, 0);
    // As `mlflow migrate-filestore` puts it into the server's database.
    let store = results.path().parent().unwrap().join("a store").canonicalize().unwrap();
    let tags =
        std::process::Command::new("find").args([".", "-name", "harness.run_id"]).current_dir(&store).output().unwrap();
    let tags = store.join(String::from_utf8(tags.stdout).unwrap().trim()).parent().unwrap().to_path_buf();
    let read = |file: std::fs::DirEntry| {
        (file.file_name().into_string().unwrap(), std::fs::read_to_string(file.path()).unwrap())
    };
    let mut migrated = TestRun {
        id: "of-the-store".into(),
        experiment: "1".into(),
        status: "FINISHED".into(),
        tags: std::fs::read_dir(&tags).unwrap().map(|file| read(file.unwrap())).collect(),
        artifact_uri: Some(format!("file://{}/1/2/artifacts", store.display().to_string().replace(' ', "%20"))),
        ..TestRun::default()
    };
    server.state().experiments.push("made".into());
    // Another folder's run of this cell began at another time.
    let others = TestRun { id: "others".into(), start_time: 5, ..migrated.clone() };
    server.state().runs.extend([migrated.clone(), others]);
    assert_contains(&send(), &["0 runs written", "1 unchanged"]);
    assert_contains(&send(), &["0 runs written", "1 unchanged"]);
    let runs = server.active();
    assert_eq!(
        (runs.len(), runs[0].tags.contains_key("harness.id"), runs[1].tags.contains_key("harness.id")),
        (2, true, false)
    );
    // One that was made from something else is replaced.
    migrated.tags.insert("harness.export_sha256".into(), "another".into());
    server.state().runs[0] = migrated;
    assert_contains(&send(), &["1 runs written"]);
    let ids: Vec<String> = server.active().into_iter().map(|run| run.id).collect();
    assert!(
        ids.len() == 2 && ids.contains(&"others".to_string()) && !ids.contains(&"of-the-store".to_string()),
        "{ids:?}"
    );
}

#[test]
fn addresses_that_are_none_are_usage_errors_that_repeat_no_password() {
    let bench = Bench::new(GRID);
    let fails = |args: &[&str], variables: &[(&str, &str)], parts: &[&str]| {
        let end = harness(&bench, args, variables);
        assert_eq!(end.code, 2, "{args:?}: {}", end.stderr);
        assert_contains(&end.stderr, parts);
        assert!(!end.stderr.contains("s3cret"), "{}", end.stderr);
    };
    fails(&["run", "grid.toml"], &[], &["where is the MLflow server?", "MLFLOW_TRACKING_URI"]);
    fails(
        &["run", "grid.toml"],
        &[("MLFLOW_TRACKING_URI", "file:///s3cret")],
        &["MLFLOW_TRACKING_URI: an address of file"],
    );
    fails(&["run", "grid.toml", "--track=http://me:s3cret@"], &[], &["--track: not an address"]);

    for (line, parts) in [("mlflow = \"mlruns\"", ["not an address of HTTP"]), ("wandb = 1", ["unknown field `wandb`"])]
    {
        std::fs::write(bench.path().join("bad.toml"), GRID.replace("[track]", &format!("[track]\n{line}"))).unwrap();
        fails(&["plan", "bad.toml"], &[], &parts);
    }
    // Nobody is told where nobody is to be.
    let end = harness(&bench, &["run", "grid.toml", "--no-track", "--quiet"], &[("MLFLOW_TRACKING_URI", "file:///x")]);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
}

/// What the ledger of a folder holds: run ids with their servers.
fn owed(bench: &Bench) -> BTreeMap<String, String> {
    let folder = bench.path().join("results/tiny/runs/.tracking/unsent");
    let files = std::fs::read_dir(folder).into_iter().flatten().map(|file| file.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn a_run_that_nobody_makes_any_more_is_said_to_be_killed() {
    let grid = GRID.replace("method = \"rtn\"", "[axes]\nmethod = [\"rtn\", \"qdrop\"]");
    let (bench, server) = (Bench::new(&grid), TestServer::start());
    let url = server.url();
    let track = format!("--track={url}");
    assert_eq!(harness(&bench, &["run", "grid.toml", &track, "--filter", "method(rtn)"], &[]).code, 0);
    // As a process leaves it that is killed while it makes the other.
    let mut forsaken = server.active().remove(0);
    let id = "resnet20-w4a4-qdrop-s0-0123456789";
    let folder = bench.path().join("results/tiny/runs/.tracking");
    let folder_id = std::fs::read_to_string(folder.join("id")).unwrap();
    let identity = metaaug::export::mlflow::server::identity(folder_id.trim(), id);
    (forsaken.id, forsaken.status) = ("f".repeat(32), "RUNNING".into());
    forsaken.tags = [("harness.id".to_string(), identity), ("harness.run_id".to_string(), id.to_string())].into();
    server.state().runs.push(forsaken);
    std::fs::write(folder.join("unsent").join(id), &url).unwrap();
    assert_eq!(owed(&bench).len(), 1);
    assert_eq!(harness(&bench, &["export", "grid.toml", "--mlflow", &url], &[]).code, 0);
    assert_eq!(server.active().iter().map(|run| run.status.as_str()).collect::<Vec<_>>(), ["KILLED", "FINISHED"]);
    assert!(owed(&bench).is_empty());
}
