//! What a run meets on a real machine: full disks, closed pipes, signals, missing files, vanished folders.

use crate::cli::{Bench, assert_contains, ended};
use metaaug::store::record::{Record, Status};
use metaaug::store::{Scan, Store, read_traces};
use ptq::recon::trace::UnitTrace;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const GRID: &str = r#"
name = "tiny"
[base]
arch = "resnet20"
bits = "W4A4"
calib-images = 32
method = "rtn"
[axes]
seed = [0, 1]
"#;

/// One of its two cells has no weights.
fn half_lacking() -> Bench {
    Bench::new(&GRID.replace("seed = [0, 1]", "weights = [\"embedded\", \"file:gone.safetensors\"]"))
}

fn scan(bench: &Bench) -> Scan {
    Store::new(&bench.path().join("results"), "tiny").scan().unwrap()
}

/// A grid that has said `said`.
fn begun(bench: &Bench, said: &str) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.current_dir(bench.path()).args(["run", "grid.toml"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.env("HARNESS_CACHE", bench.path().join("cache")).spawn().unwrap();
    let (mut heard, mut byte) = (String::new(), [0]);
    while !heard.ends_with(said) {
        child.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
        heard.push(byte[0] as char);
    }
    child
}

fn send(signal: &str, child: &std::process::Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_cell_without_weights_is_a_failed_row_and_the_others_run() {
    let bench = half_lacking();
    let plan = bench.harness(&["plan", "grid.toml"]);
    assert_contains(&plan.stdout, &["  about ", "  will fail: ", "gone.safetensors", "2 cells, 0 done"]);
    let run = bench.harness(&["run", "grid.toml"]);
    assert_eq!(run.code, 100, "{}", run.stderr);
    assert_contains(&run.stderr, &["some of the 1 cells that will fail", "gone.safetensors", "1 cells failed"]);
    let mut records = scan(&bench).records;
    records.sort_by_key(|record| record.status == Status::Failed);
    assert_eq!(records.iter().map(|record| record.status).collect::<Vec<_>>(), [Status::Done, Status::Failed]);
    assert!(records[1].error.as_ref().unwrap().contains("gone.safetensors"));
    // Where no cell has its weights there is nothing to do.
    let none = bench.harness(&["run", "grid.toml", "--set", "weights=file:gone.safetensors", "--filter", "seed(0)"]);
    assert_eq!(none.code, 96, "{}", none.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_told_and_changes_no_work() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let bench = half_lacking();
    let code = |args: &[&str], stdout: Stdio, stderr: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
        command.current_dir(bench.path()).args(args).env("HARNESS_CACHE", bench.path().join("cache"));
        let output = command.stdout(stdout).stderr(stderr).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (ended, said) = code(&["run", "grid.toml"], full(), Stdio::piped());
    assert_eq!(ended, 100, "{said}");
    assert_contains(&said, &["cannot write to standard output: No space left"]);
    assert_eq!(scan(&bench).records.len(), 2);
    for args in [&["list", "--format", "json"][..], &["plan", "--help"], &["completions", "bash"], &["doctor"]] {
        assert_eq!(code(args, full(), Stdio::piped()).0, 96, "{args:?}");
    }
    // A broken standard error stops nothing.
    assert_eq!(code(&["run", "grid.toml", "--fresh"], Stdio::null(), full()).0, 100);
    // Nobody reading on is no error.
    let (unread, closed) = std::io::pipe().unwrap();
    drop(unread);
    assert_eq!(code(&["run", "grid.toml", "--fresh"], closed.into(), Stdio::piped()).0, 100);
}

#[cfg(unix)]
#[test]
fn schedulers_and_closed_terminals_stop_a_grid_as_ctrl_c_does() {
    for (signal, code) in [("-INT", 106), ("-TERM", 143), ("-USR1", 138), ("-HUP", 129)] {
        // Under `nohup` a grid outlives its terminal, and so would this one.
        if signal == "-HUP" && ignores_hangups() {
            continue;
        }
        let bench =
            Bench::new(&GRID.replace("method = \"rtn\"", "method = \"qdrop\"\nrecipe = { iterations = 100000 }"));
        let mut child = begun(&bench, "[1/2]");
        send(signal, &child);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
        assert_contains(&said, &["stopping; a second one stops at once", "interrupted: 2 of 2 cells left"]);
        assert!(bench.path().join("results/tiny/report.html").exists());
    }
}

/// Whether this process was started to ignore SIGHUP, as its children then are.
#[cfg(unix)]
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(unix)]
#[test]
fn runs_that_somebody_took_away_while_others_were_made_are_missed() {
    let bench = Bench::new(GRID);
    assert_eq!(bench.harness(&["run", "grid.toml", "--filter", "seed(0)"]).code, 0);
    let mut child = begun(&bench, "1 cells are stored already");
    // The folder goes in one step: what is removed file by file meets what is being written into it.
    std::fs::rename(bench.path().join("results"), bench.path().join("taken")).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(100), "{said}");
    assert_contains(&said, &["1 runs that were stored are not in", "the same command makes them again"]);
    assert_eq!(scan(&bench).records.len(), 1);
}

/// Predictions and losses of every stored run, by its id.
fn results(bench: &Bench) -> BTreeMap<String, (Vec<u8>, Vec<Losses>)> {
    let store = Store::new(&bench.path().join("results"), "tiny");
    let of = |record: &Record| {
        let folder = store.run_folder(&record.run_id);
        let losses = |trace: UnitTrace| (trace.unit, trace.phase, trace.iterations, trace.loss, trace.regulariser);
        let traces = read_traces(&folder).unwrap().into_iter().map(losses).collect();
        (record.run_id.clone(), (std::fs::read(folder.join("predictions.safetensors")).unwrap(), traces))
    };
    scan(bench).records.iter().map(of).collect()
}

type Losses = (String, String, Vec<usize>, Vec<f64>, Vec<f64>);

/// How many units are kept of runs that are not done.
fn kept(partial: &Path) -> usize {
    let folders = std::fs::read_dir(partial).into_iter().flatten().flatten();
    folders.map(|run| std::fs::read_dir(run.path()).into_iter().flatten().count()).sum()
}

/// `HARNESS_KILLS=20 cargo test --release --test it killed` kills it twenty times.
#[test]
fn runs_that_are_killed_go_on_from_the_last_unit_and_end_as_if_nothing_had_happened() {
    let grid = r#"
name = "tiny"
[base]
arch = "resnet20"
bits = "W2A2"
calib-images = 64
recipe = { iterations = 12 }
meta = { iterations = 2, outer-batch = 32 }
transform = { base = 2, depth = 1, warmup-iterations = 4 }
[axes]
method = ["brecq", "metaaug"]
"#;
    let kills: u64 = std::env::var("HARNESS_KILLS").map_or(2, |kills| kills.parse().unwrap());
    // Of one also the middle of units is kept.
    for (more, every) in [(&[][..], "1ms"), (&["--isolate"], "1m")] {
        let args = [&["run", "grid.toml", "--quiet", "--checkpoint-every", every], more].concat();
        let mut were_midway = 0;
        let (undisturbed, disturbed) = (Bench::new(grid), Bench::new(grid));
        let end = undisturbed.harness(&args);
        assert_eq!(end.code, 0, "{}", end.stderr);
        let partial = disturbed.path().join("results/tiny/runs/.partial");
        for kill in 0..kills {
            let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
            command.current_dir(disturbed.path()).args(&args);
            command.env("HARNESS_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
            let (before, mut child) = (kept(&partial), command.spawn().unwrap());
            // Somewhere in the unit after the first, or the next, that is trained anew.
            while kept(&partial) == before && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(kill * 37 % 101));
            child.kill().unwrap();
            child.wait().unwrap();
            let runs = std::fs::read_dir(&partial).into_iter().flatten().flatten();
            were_midway += runs.filter(|run| run.path().join("midway").exists()).count();
        }
        assert_eq!(were_midway > 0, every == "1ms");
        assert!(scan(&disturbed).records.len() == 2 || kept(&partial) > 0);
        // A child of the last one may still be ending.
        std::thread::sleep(Duration::from_millis(500));
        let end = disturbed.harness(&args);
        assert_eq!(end.code, 0, "{}", end.stderr);
        assert_eq!(results(&disturbed), results(&undisturbed));
        assert!(!partial.exists());
    }
}

#[test]
fn a_machine_without_a_home_needs_no_cache() {
    let bench = Bench::new(GRID);
    let mut command = bench.command(&["run", "grid.toml", "--filter", "seed(0)"]);
    for name in ["HARNESS_CACHE", "XDG_CACHE_HOME", "HOME"] {
        command.env_remove(name);
    }
    let run = ended(command);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn a_grid_of_a_million_cells_is_refused_before_it_is_expanded() {
    let seeds: Vec<String> = (0..1_000).map(|seed| seed.to_string()).collect();
    let seeds = seeds.join(", ");
    let grid = GRID
        .replace("seed = [0, 1]", &format!("seed = [{seeds}]\ncalib-images = [{}]", seeds.replacen('0', "1000", 1)));
    let plan = Bench::new(&grid).harness(&["plan", "grid.toml"]);
    assert_eq!(plan.code, 2);
    assert_contains(&plan.stderr, &["the grid makes 1000000 cells", "--many-cells"]);
}

#[test]
fn a_sick_machine_does_not_fail_a_whole_grid() {
    let weights = "weights = [\"file:a.safetensors\", \"file:b.safetensors\", \"embedded\", \"file:c.safetensors\"]";
    let bench = Bench::new(&GRID.replace("seed = [0, 1]", weights));
    let left = |flags: &[&str], said: &str| {
        let end = bench.harness(&[&["run", "grid.toml", "--fresh"], flags].concat());
        assert_eq!(end.code, 100);
        assert_contains(&end.stderr, &[said]);
    };
    left(&["--fail-fast"], "1 cells failed, one too many after the other, and 3 of 4 are left");
    left(&["--max-consecutive-failures", "2"], "2 cells failed, one too many after the other, and 2 of 4 are left");
    left(&["--max-consecutive-failures", "3"], "3 cells failed;");
}
