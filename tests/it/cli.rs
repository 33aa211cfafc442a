//! The binary, as a user runs it.

use assert_cmd::Command;
use metaaug::store::record::Record;
use metaaug::store::{Predictions, Store};
use ptq::quant::diagnosis::Diagnosis;
use std::path::{Path, PathBuf};

/// A folder to run in, with a grid; full-precision accuracies are shared between tests.
pub struct Bench {
    folder: tempfile::TempDir,
}

pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

const GRID: &str = r#"
name = "tiny"
[base]
arch = "resnet20"
bits = "W4A4"
calib-images = 32
recipe = { iterations = 3 }
[axes]
method = ["rtn", "genie-m"]
"#;

impl Bench {
    pub fn new(grid: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("grid.toml"), grid).unwrap();
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("harness").unwrap();
        let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache");
        command.current_dir(self.path()).env("HARNESS_CACHE", cache).args(args);
        command
    }

    pub fn harness(&self, args: &[&str]) -> Ended {
        ended(self.command(args))
    }

    fn store(&self) -> Store {
        Store::new(&self.path().join("results"), "tiny")
    }
}

pub fn ended(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[track_caller]
pub fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn a_grid_runs_once_reports_and_explains_itself() {
    let bench = Bench::new(GRID);
    let plan = bench.harness(&["plan", "grid.toml"]);
    assert_eq!(plan.stdout.matches("  about ").count(), 2, "{}", plan.stdout);
    assert!(plan.stdout.lines().next().unwrap().ends_with("MiB"), "{}", plan.stdout);
    let dry = bench.harness(&["run", "grid.toml", "--dry-run"]);
    assert_contains(&dry.stdout, &["resnet20-w4a4-rtn-s0-", "2 of 2 cells would run"]);
    assert!(!bench.path().join("results").exists());

    let first = bench.harness(&["run", "grid.toml"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert_contains(
        &first.stderr,
        &["[1/2]", "full precision 92.76 %", "note: Genie-M differs from its published recipe in iterations"],
    );
    assert_contains(&first.stdout, &["RTN", "Genie-M", "Full precision", "92.76"]);
    let results = bench.path().join("results/tiny");
    for file in
        ["report.html", "accuracy.md", "accuracy.tex", "accuracy.csv", "runs.csv", "accuracy.svg", "accuracy.png"]
    {
        assert!(results.join(file).metadata().unwrap().len() > 100, "{file}");
    }
    let records = bench.store().scan().unwrap().records;
    assert_eq!(records.len(), 2);
    for record in &records {
        let metrics = record.metrics.as_ref().unwrap();
        let predictions = Predictions::read(&bench.store().run_folder(&record.run_id)).unwrap();
        let right = predictions.test.iter().zip(&predictions.test_labels).filter(|(p, l)| p == l).count();
        assert_eq!((predictions.test.len(), predictions.calib.len()), (10_000, 32));
        assert!((right as f64 / 10_000.0 - metrics.test_top1).abs() < 1e-12 && metrics.test_top1 > 0.9);
    }

    // The second run has nothing to do; a changed field makes one cell stale.
    let before = std::fs::read(results.join("accuracy.md")).unwrap();
    let second = bench.harness(&["run", "grid.toml"]);
    assert_contains(&second.stderr, &["2 cells are stored already, 0 to run"]);
    assert_eq!(std::fs::read(results.join("accuracy.md")).unwrap(), before);
    assert_contains(
        &bench.harness(&["plan", "grid.toml"]).stdout,
        &["done     resnet20-w4a4-rtn-s0", "2 cells, 2 done"],
    );
    assert!(!bench.harness(&["plan", "grid.toml"]).stdout.contains("about"));
    let changed = GRID.replace("iterations = 3", "iterations = 4");
    std::fs::write(bench.path().join("changed.toml"), changed).unwrap();
    let why = bench.harness(&["why", "resnet20-w4a4-genie-m", "--grid", "changed.toml"]);
    assert_contains(&why.stdout, &["stale", "recipe.iterations: 3 -> 4"]);
    assert_contains(
        &bench.harness(&["why", "resnet20-w4a4-rtn", "--grid", "grid.toml"]).stdout,
        &["done: a run of exactly"],
    );

    let show = bench.harness(&["show", "resnet20-w4a4-genie"]);
    assert_contains(&show.stdout, &["test top-1", "layer1.0 ", "weights", "arch = \"resnet20\"", "[recipe]"]);
    assert_contains(
        &bench.harness(&["show", "resnet20-w4a4-rtn", "--json"]).stdout,
        &["\"format\": 2", "\"fp_test_top1\": 0.9276"],
    );
    let layers = bench.harness(&["show", "resnet20-w4a4-genie", "--layers"]).stdout;
    assert_contains(&layers, &["layer3.2.conv2", "64 x 64 x 3 x 3", " dB", "█", "clipped", "on 32 calibration images"]);
    let layers = bench.harness(&["show", "resnet20-w4a4-rtn", "--layers", "--json"]).stdout;
    let layers: Diagnosis = serde_json::from_str(&layers).unwrap();
    assert_eq!((layers.units.len(), layers.units[1].weights[0].bits), (11, Some(4)));
    let page = std::fs::read_to_string(results.join("report.html")).unwrap();
    assert_contains(&page, &["<h3>Layers</h3>", "layer3.2.conv2", "clipped, %"]);
    assert_eq!(bench.harness(&["show", "nothing"]).code, 4);

    std::fs::remove_file(results.join("accuracy.md")).unwrap();
    assert_eq!(bench.harness(&["report", "grid.toml", "--quiet"]).code, 0);
    assert_eq!(std::fs::read(results.join("accuracy.md")).unwrap(), before);
}

#[test]
fn predictions_do_not_depend_on_the_number_of_threads() {
    let grid = GRID.replace("\"rtn\", \"genie-m\"", "\"qdrop\"").replace("W4A4", "W2A2");
    let runs: Vec<Vec<u8>> = ["1", "3"]
        .iter()
        .map(|threads| {
            let bench = Bench::new(&grid);
            let mut command = bench.command(&["run", "grid.toml", "--quiet"]);
            command.env("RAYON_NUM_THREADS", threads);
            let end = ended(command);
            assert_eq!((end.code, end.stderr.as_str()), (0, ""));
            let record = bench.store().scan().unwrap().records.remove(0);
            assert_eq!(record.provenance.threads.to_string(), *threads);
            std::fs::read(bench.store().run_folder(&record.run_id).join("predictions.safetensors")).unwrap()
        })
        .collect();
    assert!(runs[0] == runs[1]);
}

#[test]
fn a_failed_cell_is_a_record_and_the_others_go_on() {
    let grid = format!("{GRID}[variants.diverging]\nrecipe = {{ act-scale-lr = 1e38 }}\n");
    let bench = Bench::new(&grid);
    let end = bench.harness(&["run", "grid.toml", "--filter", "method(genie-m)"]);
    assert_eq!(end.code, 100, "{}", end.stderr);
    assert_contains(&end.stderr, &["failed: the loss of unit", "1 cells failed"]);
    assert_contains(&end.stdout, &["Genie-M (diverging)", "– [1]", "[1] resnet20-w4a4-genie-m-diverging-s0"]);
    assert_contains(
        &bench.harness(&["plan", "grid.toml"]).stdout,
        &["failed   resnet20-w4a4-genie-m-diverging", "pending  resnet20-w4a4-rtn"],
    );
}

#[test]
fn tf32_is_part_of_what_a_run_is_and_an_error_without_a_gpu() {
    let bench = Bench::new(GRID);
    let ids = |more: &[&str]| {
        let end = bench.harness(&[&["run", "grid.toml", "--dry-run", "--device", "cpu"], more].concat());
        assert_eq!(end.code, 0, "{}", end.stderr);
        end.stdout
    };
    let (plain, tf32) = (ids(&[]), ids(&["--tf32"]));
    assert_ne!(plain, tf32);
    assert_eq!(tf32, ids(&["--set", "precision=tf32"]));
    assert_eq!(plain, ids(&["--set", "precision=f32"]));
    let end = bench.harness(&["run", "grid.toml", "--tf32", "--device", "cpu", "--quiet"]);
    assert_eq!(end.code, 100, "{}", end.stderr);
    let records = bench.store().scan().unwrap().records;
    let says = |record: &Record| {
        record.error.as_deref().unwrap_or_default().contains("tf32 is a way to compute of NVIDIA GPUs")
    };
    assert!(!records.is_empty() && records.iter().all(says));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_stops_soon_and_says_how_to_go_on() {
    use std::io::{BufRead, BufReader};
    let bench = Bench::new(&GRID.replace("iterations = 3", "iterations = 100000"));
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("harness"))
        .args(["run", "grid.toml", "--filter", "method(genie-m)"])
        .current_dir(bench.path())
        .env("HARNESS_CACHE", bench.path().join("cache"))
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().starts_with("[1/1]")).unwrap().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let status = child.wait().unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(status.code(), Some(106), "{rest:?}");
    assert_contains(&rest.join("\n"), &["stopping", "1 of 1 cells left; the same command goes on from here"]);
    // It stopped within the cell, which it had hours to go in.
    assert!(bench.store().scan().unwrap().records.is_empty());
}

#[cfg(unix)]
#[test]
fn nobody_reading_the_output_is_no_error() {
    let bench = Bench::new(GRID);
    let mut command = std::process::Command::new("sh");
    let script = format!("'{}' inspect grid.toml | head -n 1", assert_cmd::cargo::cargo_bin("harness").display());
    let output = command.args(["-c", &script]).current_dir(bench.path()).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn inspect_lists_what_is_quantized() {
    let bench = Bench::new(GRID);
    let list = bench.harness(&["inspect", "grid.toml", "resnet20-w4a4-genie", "--set", "setting=brecq"]).stdout;
    let line = |start: &str| {
        let columns = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>().join(" ");
        list.lines().map(columns).find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}\n{list}"))
    };
    assert_eq!(line("stem conv1.weight"), "stem conv1.weight weight 8 per channel (16)");
    assert_eq!(line("layer1.0 input -> layer1.0.conv1"), "layer1.0 input -> layer1.0.conv1 input 8 per tensor");
    assert_eq!(line("layer1.1 input -> layer1.1.add"), "layer1.1 input -> layer1.1.add input 4 per tensor");
    assert_eq!(line("classifier flatten -> fc"), "classifier flatten -> fc input 8 per tensor");
    // --set decides the axis: one cell is left of two.
    let list = bench.harness(&["plan", "grid.toml", "--set", "method=brecq", "--filter", "method(brecq)"]);
    assert_eq!(list.code, 0, "{}", list.stderr);
    assert_contains(&list.stdout, &["resnet20-w4a4-brecq-s0", "1 cells, 0 done"]);
}

#[test]
fn bad_input_is_one_clear_error() {
    let bench = Bench::new(GRID);
    let fails = |args: &[&str], code: i32, parts: &[&str]| {
        let end = bench.harness(args);
        assert_eq!(end.code, code, "{args:?}: {}", end.stderr);
        assert_contains(&end.stderr, parts);
        assert!(!end.stderr.contains("panicked"), "{}", end.stderr);
    };
    fails(&["run", "missing.toml"], 96, &["cannot read grid missing.toml"]);
    fails(&["run", "grid.toml", "--set", "method=qdorp"], 2, &["unknown method `qdorp`", "did you mean qdrop?"]);
    fails(&["run", "grid.toml", "--filter", "bits(w8a8)"], 4, &["matches none of 2 cells"]);
    fails(&["run", "grid.toml", "--device", "cuda:0"], 96, &["built for the CPU alone"]);
    fails(&["run", "grid.toml", "--device", "tpu"], 2, &["auto, cpu or cuda:N"]);
    fails(&["run", "grid.toml", "--smoke"], 2, &["no [smoke] section"]);
    fails(&["why", "xyz", "--grid", "grid.toml"], 4, &["no cell of a grid begins with \"xyz\""]);

    let weights = include_bytes!("../../assets/resnet20-fashion-mnist/model.safetensors");
    std::fs::write(bench.path().join("cut.safetensors"), &weights[..weights.len() / 2]).unwrap();
    fails(
        &["run", "grid.toml", "--set", "weights=file:cut.safetensors"],
        96,
        &["cut.safetensors", "not a complete safetensors file"],
    );
    let other = include_bytes!("../../assets/mobilenetv2-tiny-fashion-mnist/model.safetensors");
    std::fs::write(bench.path().join("other.safetensors"), other).unwrap();
    let end = bench.harness(&["run", "grid.toml", "--set", "weights=file:other.safetensors"]);
    assert_eq!(end.code, 100, "{}", end.stderr);
    assert_contains(
        &end.stderr,
        &["weights of resnet20 do not fit", "missing conv1.weight", "unexpected features.0.0.weight"],
    );

    std::fs::write(bench.path().join("file"), "").unwrap();
    fails(&["run", "grid.toml", "--results", "file"], 96, &["file/tiny"]);
}

#[test]
fn several_devices_share_the_cells_of_a_grid_without_changing_them() {
    let metrics = |args: &[&str]| {
        let bench = Bench::new(GRID);
        let run = bench.harness(&[&["run", "grid.toml"], args].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        let records = bench.store().scan().unwrap().records;
        let mut metrics: Vec<_> =
            records.into_iter().map(|record| (record.run_id, record.metrics, record.provenance.device)).collect();
        metrics.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(metrics.len(), 2);
        metrics
    };
    assert_eq!(metrics(&["--devices", "cpu,cpu"]), metrics(&["--device", "cpu"]));
    let wrong = Bench::new(GRID).harness(&["run", "grid.toml", "--devices", "cpu,gpu"]);
    assert_eq!(wrong.code, 2);
    assert_contains(&wrong.stderr, &["--device \"gpu\" is not auto, cpu or cuda:N"]);
}
