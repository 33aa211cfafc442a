//! Cells in processes of their own: `harness run --isolate`, and `harness cell`, which these processes are.

use crate::cli::{Bench, assert_contains, ended};
use candle_core::Device;
use metaaug::experiment::{Experiment, Keep, Options, Revisions, RunId};
use metaaug::hub::Hub;
use metaaug::launch::{Event, Job, Loader, What};
use metaaug::store::record::Record;
use metaaug::store::{Store, read_traces};
use std::path::Path;

const GRID: &str = r#"
name = "tiny"
[base]
arch = "resnet20"
bits = "W4A4"
calib-images = 32
recipe = { iterations = 3 }
[axes]
method = ["rtn", "genie-m"]
[[include]]
method = "genie-m"
variant = "diverging"
recipe = { act-scale-lr = 1e38 }
"#;

fn records(bench: &Bench, results: &str) -> Vec<(Record, std::path::PathBuf)> {
    let store = Store::new(&bench.path().join(results), "tiny");
    let records = store.scan().unwrap().records;
    records.into_iter().map(|record| (record.clone(), store.run_folder(&record.run_id))).collect()
}

#[test]
fn cells_give_the_same_in_processes_of_their_own() {
    let bench = Bench::new(GRID);
    let run = |results: &str, more: &[&str]| {
        let end = bench.harness(&[&["run", "grid.toml", "--results", results], more].concat());
        assert_eq!(end.code, 100, "{}", end.stderr);
        assert_contains(&end.stderr, &["[3/3]", "full precision 92.76 %", "failed: the loss of unit"]);
        records(&bench, results)
    };
    let (own, shared) = (run("own", &["--jobs", "2"]), run("shared", &[]));
    assert_eq!((own.len(), shared.len()), (3, 3));
    for ((own, own_folder), (shared, shared_folder)) in own.into_iter().zip(shared) {
        let of = |record: &Record| {
            let Record { run_id, hashes, metrics, error, weights_source, preprocess, .. } = record.clone();
            (run_id, hashes, metrics, error, weights_source, preprocess)
        };
        assert_eq!(of(&own), of(&shared));
        // A process of its own has a peak of its own.
        assert!(own.cost.peak_memory_bytes.is_some() && own.provenance.grid == "grid.toml");
        let predictions = |folder: &Path| std::fs::read(folder.join("predictions.safetensors")).ok();
        assert!(predictions(&own_folder) == predictions(&shared_folder), "{}", own.run_id);
        let losses = |folder: &Path| {
            let traces = read_traces(folder).unwrap().into_iter();
            traces.map(|trace| format!("{} {} {:?}", trace.unit, trace.phase, trace.loss)).collect::<Vec<_>>()
        };
        assert_eq!(losses(&own_folder), losses(&shared_folder));
    }
}

/// The process ids of the children of process `parent`.
#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<u32> {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_child = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // After the name, which may contain anything, come state and parent.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        rest.split_whitespace().nth(1).and_then(|id| id.parse::<u32>().ok()) == Some(parent)
    };
    processes.filter(is_child).collect()
}

/// A grid whose second cell takes as long as it may, begun; calls `act` with the process ids of parent and child while the child trains.
#[cfg(target_os = "linux")]
fn while_training(act: impl FnOnce(u32, u32)) -> (Bench, Option<i32>, String) {
    use std::io::Read;
    use std::time::{Duration, Instant};
    let grid = GRID.split("[[include]]").next().unwrap().replace("iterations = 3", "iterations = 100000");
    let bench = Bench::new(&grid);
    let mut parent = std::process::Command::new(assert_cmd::cargo::cargo_bin("harness"))
        .args(["run", "grid.toml", "--isolate", "--retries", "0"])
        .current_dir(bench.path())
        .env("HARNESS_CACHE", std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache"))
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let state = bench.path().join("results/tiny/runs/.live/state.json");
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let live: serde_json::Value =
            std::fs::read(&state).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        // Its steps have come here.
        let units = live["current"]["units"].as_array().cloned().unwrap_or_default();
        if units.iter().any(|unit| unit["iteration"].as_u64().is_some_and(|iteration| iteration > 0)) {
            break;
        }
        assert!(Instant::now() < deadline, "no child trains");
        std::thread::sleep(Duration::from_millis(50));
    }
    let own = children(parent.id());
    assert_eq!(own.len(), 1);
    act(parent.id(), own[0]);
    let code = parent.wait().unwrap().code();
    let mut said = String::new();
    parent.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let is_running = |process: u32| Path::new(&format!("/proc/{process}")).exists();
    assert!(!is_running(own[0]), "the child lives on");
    (bench, code, said)
}

#[cfg(target_os = "linux")]
fn kill(signal: &str, process: u32) {
    assert!(std::process::Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn a_child_that_is_killed_is_a_failed_cell_which_keeps_its_losses() {
    let (bench, code, said) = while_training(|_, child| kill("-KILL", child));
    assert_eq!(code, Some(100), "{said}");
    assert_contains(&said, &["failed: the cell's process: signal: 9 (SIGKILL)", "1 cells failed"]);
    let records = records(&bench, "results");
    assert_eq!(records.len(), 2);
    let (killed, folder) = records.iter().find(|(record, _)| record.error.is_some()).unwrap();
    assert!(killed.run_id.contains("genie-m") && killed.metrics.is_none());
    let traces = read_traces(folder).unwrap();
    assert_eq!((traces[0].phase.as_str(), traces[0].iterations[0]), ("weights", 1));
    assert!(traces[0].loss[0].is_finite() && traces[0].wall_s > 0.0);
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_reaches_the_child() {
    let (bench, code, said) = while_training(|parent, _| kill("-INT", parent));
    assert_eq!(code, Some(106), "{said}");
    assert_contains(&said, &["1 of 2 cells left; the same command goes on from here"]);
    assert_eq!(records(&bench, "results").len(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_cell_that_takes_too_much_memory_is_a_failure_and_the_others_go_on() {
    let large = "variant = \"large\"\ncalib-images = 1024\nrecipe = { iterations = 1, batch = 1024 }\n";
    let grid = GRID.split("variant").next().unwrap().replace("[\"rtn\", \"genie-m\"]", "[\"rtn\"]");
    let bench = Bench::new(&format!("{grid}{large}"));
    // Twice: the second time with less memory for activations and smaller batches.
    let run = bench.harness(&["run", "grid.toml", "--cell-memory", "500MiB", "--retries", "1"]);
    assert_eq!(run.code, 100, "{}", run.stderr);
    assert_contains(&run.stderr, &["1 cells failed"]);
    let (failed, done): (Vec<_>, Vec<_>) =
        records(&bench, "results").into_iter().map(|(record, _)| record).partition(|record| record.error.is_some());
    assert_eq!((failed.len(), done.len(), done[0].cell.calib_images), (1, 1, 32));
    let error = failed[0].error.as_ref().unwrap();
    assert_contains(error, &["at attempt 2", "SIGABRT", "out of memory", "memory allocation of"]);
    let cost = &failed[0].cost;
    assert!(cost.cpu_s > 0.0 && cost.peak_memory_bytes.is_some(), "{cost:?}");
}

#[test]
fn a_job_leaves_lines_of_events_and_the_folder_of_its_run() {
    let bench = Bench::new(GRID);
    let experiment = Experiment::read(&bench.path().join("grid.toml"), &Options::default()).unwrap();
    let cell = experiment.cells[1].clone();
    let hashes = Loader::new(&Device::Cpu, Hub::silent()).hashes(&cell).unwrap();
    let revisions = Revisions::of(&cell);
    let run_id = RunId::new(&cell, &hashes, &revisions).to_string();
    let (experiment, grid) = ("tiny".to_string(), "grid.toml".to_string());
    let keep = Keep::default();
    let mut job = Job { run_id: run_id.clone(), experiment, grid, cell, hashes, revisions, data_source: None, keep };
    job.write(&bench.path().join("job.json")).unwrap();
    let arguments = ["cell", "job.json", "--out", "out"];
    let end = bench.harness(&arguments);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
    let events: Vec<Event> = end.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.len() > 30 && events.iter().all(|event| event.run_id == run_id));
    assert_eq!(events[0].what, What::Started);
    let What::Finished(record) = &events.last().unwrap().what else { panic!("{:?}", events.last()) };
    let folder = bench.path().join("out").join(&run_id);
    let stored: Record = serde_json::from_slice(&std::fs::read(folder.join("record.json")).unwrap()).unwrap();
    assert_eq!(**record, stored);
    assert!(folder.join("predictions.safetensors").exists() && read_traces(&folder).unwrap().len() >= 9);

    // Smaller batches of evaluation have the same results.
    let smaller = bench.harness(&["cell", "job.json", "--out", "smaller", "--eval-batch", "7"]);
    assert_eq!(smaller.code, 0, "{}", smaller.stderr);
    let in_batches = bench.path().join("smaller").join(&run_id);
    let predictions = |folder: &Path| std::fs::read(folder.join("predictions.safetensors")).unwrap();
    assert!(predictions(&in_batches) == predictions(&folder));
    let record: Record = serde_json::from_slice(&std::fs::read(in_batches.join("record.json")).unwrap()).unwrap();
    assert_eq!((record.metrics, record.provenance.eval_batch), (stored.metrics, 7));

    // Standard input is at its end from the beginning.
    let mut command = bench.command(&[&arguments[..], &["--until-eof"]].concat());
    command.write_stdin("");
    assert_eq!(ended(command).code, 106);
    job.cell.seed = 5;
    job.write(&bench.path().join("job.json")).unwrap();
    let end = bench.harness(&arguments);
    assert_eq!(end.code, 2, "{}", end.stderr);
    assert_contains(&end.stderr, &["job.json: run_id: the job is called resnet20-w4a4-genie-m-s0"]);
}
