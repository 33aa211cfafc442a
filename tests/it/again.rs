//! `harness verify` and `harness reproduce`.

use crate::cli::{Bench, assert_contains};
use crate::stored::Results;
use std::fs;

/// Cells whose TOML has everything: a variant, a transform network, an augmentation, floats of all sizes.
const CELLS: &str = r#"
name = "many"
[base]
arch = "resnet20"
bits = "W2A2"
calib-images = 64
recipe = { iterations = 3, alpha-lr = 1e-7, drop-input = 0.1 }
[axes]
method = ["rtn", "adaround", "brecq", "qdrop", "genie-m"]
seed = [0, 123456789012]
[variants.plain]
[variants.brecq]
setting = "brecq"
recipe = { round-weight = 0.30000000000000004 }
[[include]]
method = "metaaug"
variant = "meta"
terms = { margin = 1e30 }
meta = { batch = 8, outer-batch = 8, iterations = 2 }
[[include]]
method = "qdrop"
augment = ["mixup"]
"#;

#[test]
fn a_reproduced_grid_plans_the_run_of_the_same_id() {
    let results = Results::new();
    results.write("many.toml", CELLS);
    let planned = results.planned("many.toml");
    assert_eq!(planned.len(), 22);
    for (cell, id) in planned {
        let mut record = results.record("many", &cell, &[true]);
        record.run_id = id.clone();
        results.store(&record, &[true]);
        let end = results.harness(&["reproduce", &format!("many/{id}")]);
        assert_eq!(end.code, 0, "{}", end.stderr);
        assert_contains(&end.stdout, &["harness run again.toml", &format!("harness reproduce many/{id} > again.toml")]);
        results.write("again.toml", &end.stdout);
        let [(again, again_id)] = &results.planned("again.toml")[..] else { panic!("not one cell") };
        assert_eq!((again, again_id), (&cell, &id));
    }
}

const GRID: &str = r#"
name = "tiny"
[base]
arch = "resnet20"
bits = "W4A4"
calib-images = 32
recipe = { iterations = 3 }
[axes]
method = ["rtn", "qdrop"]
"#;

#[test]
fn a_run_is_verified_and_an_edited_one_is_not() {
    let bench = Bench::new(GRID);
    assert_eq!(bench.harness(&["run", "grid.toml", "--quiet"]).code, 0);
    let same = bench.harness(&["verify", "method(*)", "--quiet"]);
    assert_eq!((same.code, same.stderr.as_str()), (0, ""), "{}", same.stdout);
    assert_eq!(
        same.stdout.matches("the same: 10000 test and 32 calibration predictions").count(),
        2,
        "{}",
        same.stdout
    );
    assert_contains(&same.stdout, &["made by   harness", "again by  harness", "threads on"]);
    assert_eq!(bench.harness(&["plan", "grid.toml"]).stdout.matches("done ").count(), 2);

    let folder = |method: &str| {
        let runs = fs::read_dir(bench.path().join("results/tiny/runs")).unwrap();
        let mut folders = runs.map(|entry| entry.unwrap().path());
        folders.find(|path| path.file_name().unwrap().to_string_lossy().contains(method)).unwrap()
    };
    // The classes of RTN under the name of QDrop.
    fs::copy(folder("rtn").join("predictions.safetensors"), folder("qdrop").join("predictions.safetensors")).unwrap();
    let different = bench.harness(&["verify", "resnet20-w4a4-qdrop", "--quiet"]);
    assert_eq!(different.code, 100, "{}", different.stderr);
    assert_contains(&different.stdout, &["DIFFERENT: ", "of 10000 test"]);

    // Of a cell edited by hand, of another revision, of weights that are not here: nothing is computed.
    let record = folder("rtn").join("record.json");
    let text = fs::read_to_string(&record).unwrap();
    for (from, to, part) in [
        ("\"seed\": 0", "\"seed\": 1", "its record does not make its id"),
        ("\"method_revision\": 1", "\"method_revision\": 9", "revision of the method: 9 then, 1 here"),
        ("\"ops\": 1", "\"ops\": 9", "revision of ops: 9 then, 1 here"),
        ("\"weights\": \"c3dc", "\"weights\": \"dddd", "SHA-256 of weights: dddd"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&record, text.replace(from, to)).unwrap();
        let end = bench.harness(&["verify", "resnet20-w4a4-rtn", "--quiet"]);
        assert_eq!(end.code, 100, "{}", end.stderr);
        assert_contains(&end.stdout, &["cannot be made again", part]);
        assert_contains(&bench.harness(&["reproduce", "resnet20-w4a4-rtn"]).stderr, &["another run", part]);
    }
    fs::write(&record, text.replace("\"status\": \"done\"", "\"status\": \"failed\"")).unwrap();
    let end = bench.harness(&["verify", "resnet20-w4a4-rtn"]);
    assert_eq!(end.code, 4, "{}", end.stderr);
    assert_contains(&end.stderr, &["failed runs have no predictions"]);
}
