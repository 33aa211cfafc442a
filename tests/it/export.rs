//! `harness export`: what it writes, read back.

use crate::cli::assert_contains;
use crate::stored::{Results, first};
use candle_core::{Device, Tensor};
use metaaug::store::record::Status;
use metaaug::store::{Artefacts, Pictures, Store};
use ptq::recon::trace::{TermTrace, UnitTrace};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A run with losses and pictures in `made`, and a failed one in `other`.
fn results() -> Results {
    let results = Results::new();
    let record = results.record("made", &results.cell("qdrop", "W2A2", 3), &first(80, 100));
    let mut trace = UnitTrace::new("../../up", "meta");
    (trace.iterations, trace.loss, trace.wall_s) = (vec![1, 4], vec![0.5, f64::NAN], 2.0);
    trace.terms =
        vec![TermTrace { name: "margin".into(), weight: 1.0, loss: vec![1.0, 2.0], gradient_norm: vec![3.0, 4.0] }];
    let x = Tensor::zeros((2, 1, 3, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let pictures = Pictures { t_x: x.affine(1.0, 0.5).unwrap(), x };
    let store = Store::new(&results.path(), "made");
    let lock = store.lock().unwrap();
    let artefacts =
        Artefacts { traces: vec![trace], pictures: Some(pictures), log: Some("a log".into()), ..Artefacts::default() };
    store.write_run(&record, "a cell", &artefacts).unwrap();
    drop(lock);
    let mut failed = results.record("other", &results.cell("rtn", "W4A4", 0), &[true]);
    (failed.status, failed.error, failed.metrics) = (Status::Failed, Some("why:\n\"this\"".into()), None);
    results.store(&failed, &[]);
    results
}

/// Every file below `folder`, with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    drop(files.insert(path.strip_prefix(folder).unwrap().to_path_buf(), std::fs::read(&path).unwrap()))
                }
            }
        }
    }
    files
}

/// The one path that ends so, and its content as text.
fn find(files: &BTreeMap<PathBuf, Vec<u8>>, end: &str) -> String {
    let found: Vec<_> = files.iter().filter(|(path, _)| path.ends_with(end)).collect();
    let [(_, content)] = found[..] else { panic!("{end}: {found:?}") };
    String::from_utf8_lossy(content).into_owned()
}

#[test]
fn mlflow_gets_params_metrics_tags_and_artefacts() {
    let results = results();
    let end = results.harness(&["export", "method(qdrop)", "--mlflow", "out"]);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
    assert_contains(&end.stdout, &["1 runs written to out, 0 unchanged"]);
    let out = results.path().parent().unwrap().join("out");
    let files = files(&out);
    assert_eq!(find(&files, "params/bits"), "W2A2");
    assert_eq!(find(&files, "params/recipe.drop-inside"), "0.5");
    assert_eq!(find(&files, "metrics/test_top1"), "1500 0.8 0\n");
    // Names from records never leave their place.
    assert_eq!(find(&files, "metrics/loss/.._.._up/meta"), "500 0.5 1\n2000 NaN 4\n");
    assert_eq!(find(&files, "metrics/gradient_norm/.._.._up/margin"), "500 3 1\n2000 4 4\n");
    assert_eq!(find(&files, "tags/mlflow.source.name"), "grid.toml");
    assert_eq!(find(&files, "artifacts/log.txt"), "a log");
    assert!(find(&files, "artifacts/pictures.png").contains("PNG"));
    let meta: Vec<_> = files.iter().filter(|(path, _)| path.ends_with("meta.yaml")).collect();
    assert_eq!(meta.len(), 2);
    let run = meta.iter().find(|(path, _)| path.components().count() == 3).unwrap();
    assert_contains(
        &String::from_utf8_lossy(run.1),
        &["status: 3", "lifecycle_stage: active", "artifact_uri: \"file:///"],
    );
    assert!(!results.path().parent().unwrap().join("up").exists());
}

#[test]
fn exporting_again_changes_nothing_unless_the_run_changed() {
    let results = results();
    let export = || results.harness(&["export", "--mlflow", "out", "--tensorboard", "logs"]);
    assert_eq!(export().code, 0);
    let out = results.path().parent().unwrap().join("out");
    let logs = results.path().parent().unwrap().join("logs");
    let before = (files(&out), files(&logs));
    assert_eq!(before.1.len(), 2);
    assert_contains(&find(&before.0, "tags/harness.error"), &["why:\n\"this\""]);
    // What somebody wrote in MLflow stays.
    let note = before
        .0
        .keys()
        .find(|path| path.ends_with("tags/harness.error"))
        .unwrap()
        .with_file_name("mlflow.note.content");
    std::fs::write(out.join(&note), "mine").unwrap();
    assert_contains(&export().stdout, &["0 runs written to out, 2 unchanged"]);
    std::fs::remove_file(out.join(&note)).unwrap();
    assert!((files(&out), files(&logs)) == before);

    let record = results.record("made", &results.cell("qdrop", "W2A2", 3), &first(90, 100));
    results.store(&record, &first(90, 100));
    assert_contains(&export().stdout, &["1 runs written to out, 1 unchanged"]);
    let after = files(&out);
    assert_eq!(find(&after, "metrics/test_top1"), "1500 0.9 0\n");
    assert!(
        !after
            .keys()
            .any(|path| path.ends_with("artifacts/pictures.png") || path.to_string_lossy().contains(".writing"))
    );
    assert_eq!(before.0.keys().filter(|path| path.ends_with("meta.yaml")).count(), 4);
    assert_eq!(after.keys().filter(|path| path.ends_with("meta.yaml")).count(), 4);
}

#[test]
fn notes_and_tags_follow_to_mlflow_whether_the_run_changed_or_not() {
    let results = results();
    let run = |arguments: &[&str]| assert_eq!(results.harness(arguments).code, 0, "{arguments:?}");
    let out = results.path().parent().unwrap().join("out");
    run(&["export", "status(done)", "--mlflow", "out"]);
    assert!(!files(&out).keys().any(|path| path.ends_with("tags/harness.tags")));
    run(&["tag", "status(done)", "paper", "final"]);
    let id = results.harness(&["list", "--filter", "tag(paper)", "--columns", "run", "--format", "csv"]).stdout;
    run(&["note", id.lines().nth(1).unwrap(), "looks <b>good</b>"]);
    run(&["export", "status(done)", "--mlflow", "out"]);
    let after = files(&out);
    assert_eq!(find(&after, "tags/harness.tags"), "final, paper");
    assert_eq!(find(&after, "tags/harness.notes"), "looks <b>good</b>");
    run(&["tag", "tag(paper)", "--remove", "paper,final"]);
    run(&["export", "status(done)", "--mlflow", "out"]);
    assert!(!files(&out).keys().any(|path| path.ends_with("tags/harness.tags")));
}

#[test]
fn an_experiment_that_mlflow_has_is_used() {
    let results = results();
    let own = results.path().parent().unwrap().join("out/7");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("meta.yaml"), "experiment_id: '7'\nlifecycle_stage: active\nname: made\n").unwrap();
    assert_eq!(results.harness(&["export", "method(qdrop)", "--mlflow", "out"]).code, 0);
    let out = files(&results.path().parent().unwrap().join("out"));
    assert!(out.keys().all(|path| path.starts_with("7")), "{:?}", out.keys());
    assert_contains(&find(&out, "tags/harness.run_id"), &["resnet20-w2a2-qdrop-s3"]);
}

/// Payloads of a file of TensorFlow records, checksums compared.
fn records(file: &[u8]) -> Vec<&[u8]> {
    let masked = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let (mut rest, mut records) = (file, Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(rest[8..12], masked(&rest[..8]));
        assert_eq!(rest[12 + length..16 + length], masked(&rest[12..12 + length]));
        records.push(&rest[12..12 + length]);
        rest = &rest[16 + length..];
    }
    records
}

#[test]
fn tensorboard_gets_records_that_are_whole() {
    let results = results();
    let end = results.harness(&["export", "made", "--tensorboard", "logs"]);
    assert_eq!(end.code, 4, "{}", end.stderr);
    let end = results.harness(&["export", "experiment(made)", "--tensorboard", "logs"]);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
    let files = files(&results.path().parent().unwrap().join("logs"));
    let [(path, file)] = &files.iter().collect::<Vec<_>>()[..] else { panic!("{:?}", files.keys()) };
    assert!(path.starts_with("made") && path.to_string_lossy().contains("tfevents"));
    let records = records(file);
    // Version, cell, two steps, single numbers, log, pictures.
    assert_eq!(records.len(), 7);
    let has = |index: usize, text: &[u8]| records[index].windows(text.len()).any(|window| window == text);
    assert!(has(0, b"brain.Event:2") && has(1, b"recipe") && has(2, b"loss/.._.._up/meta"));
    assert!(has(4, b"accuracy/test_top1") && has(5, b"a log") && has(6, b"T(x)/1") && has(6, b"\x89PNG"));
}

#[test]
fn tables_are_written_and_mistakes_said() {
    let results = results();
    results.write(
        "grid.toml",
        "name = \"made\"\n[base]\narch = \"resnet20\"\nmethod = \"qdrop\"\nbits = \"W2A2\"\ncalib-images = 32\n",
    );
    let end = results.harness(&["export", "--csv", "a/runs.csv", "--json", "a/runs.json"]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    let read = |name: &str| std::fs::read_to_string(results.path().parent().unwrap().join(name)).unwrap();
    assert_eq!(read("a/runs.csv").lines().filter(|line| line.contains("resnet20-w")).count(), 2);
    let json: serde_json::Value = serde_json::from_str(&read("a/runs.json")).unwrap();
    assert_eq!(json[0]["metrics"]["test_top1"], 0.8);

    let fails = |args: &[&str], code: i32, parts: &[&str]| {
        let end = results.harness(&[&["export"], args].concat());
        assert_eq!(end.code, code, "{args:?}: {}", end.stderr);
        assert_contains(&end.stderr, parts);
    };
    fails(&[], 2, &["--mlflow <DIR|URL>", "--tensorboard <DIR>"]);
    fails(&["methd(qdrop)", "--csv", "x.csv"], 2, &["methd"]);
    fails(&["nothing", "--csv", "x.csv"], 4, &["no stored run begins with \"nothing\""]);
    fails(&["grid.toml", "--csv", "x.csv"], 4, &["no run of grid.toml is stored"]);
    fails(&["--mlflow", "grid.toml"], 96, &["cannot make folder grid.toml"]);
    fails(&["--results", "nowhere", "--csv", "x.csv"], 4, &["no runs are stored under nowhere"]);

    // A run whose losses cannot be read is named; the other is exported.
    let run = std::fs::read_dir(results.path().join("made/runs")).unwrap().map(|entry| entry.unwrap().path());
    let run = run.into_iter().find(|path| path.join("trace.json").exists()).unwrap();
    std::fs::write(run.join("trace.json"), "[{").unwrap();
    fails(&["--mlflow", "out"], 100, &["skipping resnet20-w2a2-qdrop-s3", "trace.json"]);
    assert_eq!(
        files(&results.path().parent().unwrap().join("out")).keys().filter(|path| path.ends_with("meta.yaml")).count(),
        2
    );
}

/// The texts of the first two columns that a query of a database gives.
fn rows(database: &Path, query: &str) -> Vec<(String, String)> {
    let database = rusqlite::Connection::open(database).unwrap();
    let mut statement = database.prepare(query).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn trackio_gets_configurations_numbers_and_failures_once() {
    let results = results();
    let path = results.path().parent().unwrap().join("new/runs.db");
    let export = |what: &str| {
        let end = results.harness(&["export", what, "--trackio", "new/runs.db"]);
        assert_eq!((end.code, end.stderr.as_str()), (0, ""));
        end.stdout
    };
    assert_contains(&export("status(done)"), &["1 runs written to new/runs.db, 0 unchanged"]);
    assert_contains(&export("run(*)"), &["1 runs written to new/runs.db, 1 unchanged"]);
    let metrics =
        rows(&path, "SELECT CAST(step AS TEXT), metrics FROM metrics WHERE run_name LIKE '%qdrop%' ORDER BY id");
    assert_eq!(metrics.iter().map(|(step, _)| step.as_str()).collect::<Vec<_>>(), ["1", "4", "0"]);
    assert_contains(&metrics[1].1, &["\"loss/.._.._up/meta\":\"NaN\"", "\"gradient_norm/.._.._up/margin\":4.0"]);
    assert_contains(&metrics[2].1, &["\"accuracy/test_top1\":0.8"]);
    let configs = rows(&path, "SELECT run_name, config FROM configs ORDER BY id");
    assert_eq!(configs.len(), 2);
    assert_contains(
        &configs[0].1,
        &["\"recipe.drop-inside\":0.5", "\"_Group\":\"made\"", "\"harness.status\":\"done\""],
    );
    assert_eq!(rows(&path, "SELECT level, text FROM alerts"), [("error".into(), "why:\n\"this\"".into())]);

    // A run of somebody else stays, and one that changed takes its own place.
    let own = "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES ('x', 'then', 'mine', 0, '{}')";
    rusqlite::Connection::open(&path).unwrap().execute(own, []).unwrap();
    let record = results.record("made", &results.cell("qdrop", "W2A2", 3), &first(90, 100));
    results.store(&record, &first(90, 100));
    assert_contains(&export("run(*)"), &["1 runs written to new/runs.db, 1 unchanged"]);
    let left = rows(
        &path,
        "SELECT run_name, metrics FROM metrics WHERE run_name LIKE '%qdrop%' OR run_name = 'mine' ORDER BY id",
    );
    assert!(left.len() == 2 && left[0].0 == "mine", "{left:?}");
    assert_contains(&left[1].1, &["\"accuracy/test_top1\":0.9"]);
    // Names that nobody would choose.
    let name = "it's \"a\u{2215}b\" ü 🦀 ".repeat(11);
    std::fs::rename(results.path().join("made"), results.path().join(name.trim_end())).unwrap();
    assert_contains(&export("status(done)"), &["1 runs written to new/runs.db, 0 unchanged"]);
    let groups = rows(&path, "SELECT json_extract(config, '$._Group'), run_id FROM configs ORDER BY id DESC");
    assert_eq!(groups[0].0, name.trim_end());
    let beside: Vec<_> = files(path.parent().unwrap()).into_keys().collect();
    assert_eq!(beside, [PathBuf::from("runs.db")]);
}

#[test]
fn what_is_no_project_of_trackio_is_left_alone() {
    let results = results();
    let path = results.path().parent().unwrap().join("there.db");
    let refused = |parts: &[&str]| {
        let before = std::fs::read(&path).unwrap();
        let end = results.harness(&["export", "--trackio", "there.db"]);
        assert_eq!((end.code, end.stdout.as_str(), end.stderr.lines().count()), (96, "", 1), "{}", end.stderr);
        assert_contains(&end.stderr, parts);
        assert!(std::fs::read(&path).unwrap() == before);
    };
    std::fs::write(&path, "not a database at all".repeat(99)).unwrap();
    refused(&["there.db", "no whole database", "name another file"]);
    std::fs::write(&path, "").unwrap();
    refused(&["there.db", "no project of Trackio"]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(results.harness(&["export", "--trackio", "there.db"]).code, 0);
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute_batch("PRAGMA user_version = 3").unwrap();
    refused(&["version 3 of Trackio's schema", "knows 2"]);
}
