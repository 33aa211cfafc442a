//! A folder of results on a machine that has neither the weights nor the data of its runs.

use crate::cli::assert_contains;
use crate::stored::{Results, first};
use metaaug::experiment::{Experiment, Options};

const GRID: &str = r#"
name = "made"
[base]
arch = "resnet20"
weights = "file:gone/model.safetensors"
data = "idx:gone"
bits = "W2A2"
calib-images = 32
[axes]
method = ["qdrop", "rtn"]
[[table]]
name = "main"
rows = ["method"]
columns = "bits"
"#;

#[test]
fn stored_runs_are_reported_exported_and_explained_without_weights_and_data() {
    let results = Results::new();
    results.write("grid.toml", GRID);
    let path = results.path().parent().unwrap().join("grid.toml");
    let cells = Experiment::read(&path, &Options::default()).unwrap().cells;
    let id = results.add(&cells[0], &first(80, 100));
    // One that is like it but for another recipe is none of the grid.
    let mut older = cells[0].clone();
    older.recipe.iterations = 7;
    results.add(&older, &first(10, 100));

    let end = results.harness(&["report", "grid.toml"]);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
    assert_contains(&end.stdout, &["80.00", "table main"]);
    let made = |name: &str| std::fs::read_to_string(results.path().join("made").join(name)).unwrap();
    assert_contains(&made("tables/main.md"), &["QDrop", "80.00"]);
    assert_contains(&made("report.html"), &[&id, "resnet20-w2a2-rtn-s0"]);
    assert_eq!(made("runs.csv").lines().count(), 2);

    let end = results.harness(&["export", "grid.toml", "--csv", "runs.csv"]);
    assert_eq!((end.code, end.stdout.as_str()), (0, "1 runs written to runs.csv\n"), "{}", end.stderr);
    let end = results.harness(&["why", &id, "--grid", "grid.toml"]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    assert_contains(&end.stdout, &["done: a run of exactly this configuration"]);
    assert_contains(&end.stderr, &["compared without weights and data, which are not here", "gone/model.safetensors"]);
    let end = results.harness(&["why", "resnet20-w2a2-rtn", "--grid", "grid.toml"]);
    assert_contains(&end.stdout, &["missing: nothing is stored"]);

    // What is to run has to be known.
    assert_ne!(results.harness(&["plan", "grid.toml"]).code, 0);
}
