//! `harness list` over stored runs, some of them damaged.

use crate::cli::assert_contains;
use crate::stored::{Results, first};
use metaaug::store::record::Status;
use serde_json::Value;

fn results() -> Results {
    let results = Results::new();
    for (experiment, method, right) in [("made", "qdrop", 80), ("made", "rtn", 50), ("other", "brecq", 70)] {
        for seed in [0, 10] {
            let right = first(right + seed / 10, 100);
            let record = results.record(experiment, &results.cell(method, "W2A2", seed as u64), &right);
            results.store(&record, &right);
        }
    }
    let mut failed = results.record("other", &results.cell("genie-m", "W2A2", 2), &first(1, 1));
    (failed.status, failed.error, failed.metrics) = (Status::Failed, Some("why".into()), None);
    results.store(&failed, &[]);
    results
}

/// The methods in the order listed.
fn methods(stdout: &str) -> Vec<String> {
    let lines = stdout.lines().filter(|line| line.trim().starts_with("resnet20"));
    lines.map(|line| line.trim().trim_start_matches("resnet20-w2a2-").split("-s").next().unwrap().to_string()).collect()
}

#[test]
fn runs_of_all_experiments_are_listed_filtered_and_sorted() {
    let results = results();
    let end = results.harness(&["list"]);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
    assert_eq!(methods(&end.stdout), ["qdrop", "qdrop", "rtn", "rtn", "brecq", "brecq", "genie-m"]);
    assert_contains(&end.stdout, &["80.00", "7 runs, 1 failed"]);

    let sorted = |args: &[&str]| methods(&results.harness(&[&["list", "--sort"], args].concat()).stdout);
    assert_eq!(sorted(&["test"]), ["genie-m", "rtn", "rtn", "brecq", "brecq", "qdrop", "qdrop"]);
    assert_eq!(sorted(&["method", "--reverse"]), ["rtn", "rtn", "qdrop", "qdrop", "genie-m", "brecq", "brecq"]);
    // Numbers are sorted as numbers: 2 comes before 10.
    assert_eq!(sorted(&["seed"])[3], "genie-m");
    assert_eq!(sorted(&["test", "--filter", "experiment(other) & status(done)"]), ["brecq", "brecq"]);

    let end = results.harness(&["list", "--filter", "status(failed)", "--json"]);
    let json: Value = serde_json::from_str(&end.stdout).unwrap();
    let [run] = &json["runs"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!((run["experiment"].as_str(), run["error"].as_str()), (Some("other"), Some("why")));
    assert!(run["folder"].as_str().unwrap().contains("results/other/runs/resnet20-w2a2-genie-m-s2-"));
}

#[test]
fn damaged_folders_are_named_and_wrong_keys_corrected() {
    let results = results();
    let runs = results.path().join("made/runs");
    std::fs::create_dir(runs.join("half")).unwrap();
    std::fs::write(runs.join("half/record.json"), "{\"format\": 1, \"run").unwrap();
    std::fs::create_dir(runs.join("newer")).unwrap();
    std::fs::write(runs.join("newer/record.json"), "{\"format\": 99}").unwrap();
    let end = results.harness(&["list"]);
    assert_eq!(end.code, 0);
    assert_contains(&end.stderr, &["half", "not a complete record", "newer", "record format 99"]);
    assert_contains(&end.stdout, &["7 runs, 1 failed, 2 damaged folders skipped"]);
    let json: Value = serde_json::from_str(&results.harness(&["list", "--json"]).stdout).unwrap();
    assert_eq!((json["runs"].as_array().unwrap().len(), json["damaged"].as_array().unwrap().len()), (7, 2));

    let fails = |args: &[&str], code: i32, parts: &[&str]| {
        let end = results.harness(&[&["list"], args].concat());
        assert_eq!((end.code, end.stdout.as_str()), (code, ""), "{args:?}: {}", end.stderr);
        assert_contains(&end.stderr, parts);
    };
    fails(&["--sort", "tests"], 2, &["there is no key \"tests\"", "did you mean test?"]);
    fails(
        &["--filter", "method(rtn) & bit(w2a2)"],
        2,
        &["there is no predicate `bit`", ":1:15]", "did you mean bits?"],
    );
    fails(&["--filter", "method=rtn"], 2, &["`method` has no value", "write method(rtn)"]);
    fails(&["--filter", "bits(w8a8)"], 4, &["matches none of 7 stored runs: none has bits(w8a8)"]);
    fails(&["--results", "nowhere"], 4, &["no runs are stored under nowhere"]);
    fails(&["--results", "grid.toml"], 96, &["cannot read grid.toml"]);
}
