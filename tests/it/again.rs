//! `harness verify` and `harness reproduce`.

use crate::cli::{Bench, assert_contains};
use crate::stored::{Results, identified};
use metaaug::store::record::{Record, Status};
use metaaug::store::{Artefacts, Run, Store};
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
        let record = results.planned_record("many", &cell, &[true]);
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
    // One wrong class that is another wrong one: the accuracy stays.
    let store = Store::new(&bench.path().join("results"), "tiny");
    let write = |record: &Record, artefacts: &Artefacts| {
        store.write_run(record, &record.cell.to_toml().unwrap(), artefacts).unwrap();
        store.run_folder(&record.run_id)
    };
    let mut run = Run::read(&folder("qdrop")).unwrap();
    let predictions = run.artefacts.predictions.as_mut().unwrap();
    let (class, label) = predictions.test.iter_mut().zip(&predictions.test_labels).find(|(a, b)| a != b).unwrap();
    *class = (0..10).find(|other| other != class && other != label).unwrap();
    write(&run.record, &run.artefacts);
    let different = bench.harness(&["verify", "resnet20-w4a4-qdrop", "--quiet"]);
    assert_eq!(different.code, 100, "{}", different.stderr);
    assert_contains(&different.stdout, &["DIFFERENT: 1 of 10000 test"]);

    // Of a cell edited by hand there is no run, and of another revision, or of weights that are not here, nothing is computed.
    let run = Run::read(&folder("rtn")).unwrap();
    let path = folder("rtn").join("record.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"seed\": 0", "\"seed\": 1")).unwrap();
    for verb in ["verify", "reproduce"] {
        let end = bench.harness(&[verb, &run.record.run_id]);
        assert_ne!(end.code, 0);
        assert_contains(&end.stderr, &["run_id is resnet20-w4a4-rtn-s0-", "make resnet20-w4a4-rtn-s1-"]);
    }
    fs::remove_dir_all(folder("rtn")).unwrap();
    let mut elsewhere = run.record.clone();
    elsewhere.hashes.weights = "d".repeat(64);
    for (record, part) in [
        (Record { method_revision: 9, ..run.record.clone() }, "revision of the method: 9 then, 1 here"),
        (
            Record { revisions: [("ops".to_string(), 9)].into(), ..run.record.clone() },
            "revision of ops: 9 then, 1 here",
        ),
        (elsewhere, "SHA-256 of weights: dddd"),
    ] {
        let folder = write(&identified(record), &run.artefacts);
        let end = bench.harness(&["verify", "resnet20-w4a4-rtn", "--quiet"]);
        assert_eq!(end.code, 100, "{}", end.stderr);
        assert_contains(&end.stdout, &["cannot be made again", part]);
        assert_contains(&bench.harness(&["reproduce", "resnet20-w4a4-rtn"]).stderr, &["another run", part]);
        fs::remove_dir_all(folder).unwrap();
    }
    let failed = Record { status: Status::Failed, error: Some("why".into()), metrics: None, ..run.record };
    write(&failed, &run.artefacts);
    let end = bench.harness(&["verify", "resnet20-w4a4-rtn"]);
    assert_eq!(end.code, 4, "{}", end.stderr);
    assert_contains(&end.stderr, &["failed runs have no predictions"]);
}
