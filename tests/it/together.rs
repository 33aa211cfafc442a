//! Several processes that run one grid into one folder of results.

use crate::cli::{Bench, assert_contains};
use metaaug::store::Store;
use metaaug::store::record::Status;
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const GRID: &str = r#"
name = "tiny"
[base]
arch = "resnet20"
bits = "W4A4"
calib-images = 16
method = "rtn"
[axes]
seed = [0, 1, 2, 3, 4, 5]
"#;

fn start(bench: &Bench) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.current_dir(bench.path()).args(["run", "grid.toml"]).stdout(Stdio::null()).stderr(Stdio::piped());
    command.env("HARNESS_CACHE", std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
    command.env("RAYON_NUM_THREADS", "1").spawn().unwrap()
}

/// What it said, once it has ended; `None` if it was killed.
fn ended(child: Child) -> Option<String> {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code()?;
    assert_eq!(code, 0, "{said}");
    Some(said)
}

#[test]
fn each_cell_is_made_by_one_of_them_and_those_of_one_that_is_killed_by_another() {
    let bench = Bench::new(GRID);
    let store = Store::new(&bench.path().join("results"), "tiny");
    let mut killed = start(&bench);
    let others: Vec<Child> = (0..2).map(|_| start(&bench)).collect();
    while store.scan().map_or(0, |scan| scan.records.len()) == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let said: Vec<String> = others.into_iter().filter_map(ended).collect();
    assert_eq!(said.len(), 2);
    let scan = store.scan().unwrap();
    assert!(scan.broken.is_empty() && scan.records.len() == 6, "{scan:?}");
    assert!(scan.records.iter().all(|record| record.status == Status::Done));
    let mut begun: BTreeMap<&str, usize> = BTreeMap::new();
    for line in said.iter().flat_map(|said| said.lines()).filter(|line| line.starts_with('[')) {
        *begun.entry(line.split(' ').next_back().unwrap()).or_default() += 1;
    }
    assert!(begun.values().all(|count| *count == 1), "{begun:?}");
    // Whoever made it, everybody tells how it ended.
    for said in &said {
        assert_eq!(said.matches("full precision 92.76 %").count(), 6, "{said}");
    }
}

#[test]
fn fixed_parts_of_a_grid_are_made_apart_and_reported_together() {
    let bench = Bench::new(
        "name = \"tiny\"\n[base]\narch = \"resnet20\"\nbits = \"W4A4\"\ncalib-images = 16\nmethod = \"rtn\"\n[axes]\nseed = [0, 1, 2]\n",
    );
    let ends = |args: &[&str], code: i32, said: &[&str]| {
        let end = bench.harness(args);
        assert_eq!(end.code, code, "{args:?}: {}", end.stderr);
        assert_contains(&format!("{}{}", end.stdout, end.stderr), said);
    };
    ends(&["plan", "grid.toml", "--shard", "1/2"], 0, &["rtn-s0-", "rtn-s2-", "2 cells, 0 done"]);
    ends(&["run", "grid.toml", "--shard", "1/2"], 0, &["[2/2]"]);
    ends(&["plan", "grid.toml", "--shard", "2/2"], 0, &["pending", "rtn-s1-", "1 cells, 0 done"]);
    ends(&["run", "grid.toml", "--shard", "2/2"], 0, &["[1/1]"]);
    // Whoever writes it last has all of them.
    let runs = std::fs::read_to_string(bench.path().join("results/tiny/runs.csv")).unwrap();
    assert_eq!(runs.lines().count(), 4, "{runs}");
    ends(&["run", "grid.toml", "--shard", "3/2"], 2, &["--shard", "I/N with I from 1 to N"]);
}
