//! `harness compare` on runs whose numbers are known.

use crate::cli::assert_contains;
use crate::stored::{Results, first, identified};
use serde_json::Value;

/// Per seed 100 images: QDrop is right on the first 80, Genie-M on 10 more; RTN on the first half.
fn results() -> Results {
    let results = Results::new();
    for seed in 0..3 {
        results.add(&results.cell("qdrop", "W2A2", seed), &first(80, 100));
        results.add(&results.cell("genie-m", "W2A2", seed), &first(90, 100));
    }
    results.add(&results.cell("rtn", "W2A2", 0), &first(50, 100));
    results.add(&results.cell("qdrop", "W4A4", 0), &first(95, 100));
    results
}

fn close(value: &Value, expected: f64) {
    assert!((value.as_f64().unwrap() - expected).abs() < 1e-12, "{value} is not {expected}");
}

#[test]
fn filters_compare_over_seeds_and_single_runs_alone() {
    let results = results();
    let end = results.harness(&["compare", "method(genie-m)", "method(qdrop) & bits(w2a2)"]);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
    assert_contains(
        &end.stdout,
        &["A  resnet20 W2A2 genie-m", "100 test images, 3 pairs", "difference +10.00 points", "is significant at 5 %"],
    );
    let json = results.harness(&["compare", "method(genie-m)", "method(qdrop) & bits(w2a2)", "--json"]).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    let [comparison] = &json.as_array().unwrap()[..] else { panic!("{json}") };
    close(&comparison["difference"], 0.1);
    // Ten images in three seeds are ten images: 2 / 2^10, not 2 / 2^30.
    close(&comparison["p"], 2.0 / 1024.0);
    close(&comparison["seeds"][0]["p"], 2.0 / 1024.0);
    assert_eq!((&comparison["only_a"], &comparison["only_b"]), (&Value::from(30), &Value::from(0)));
    let [low, high] = [0, 1].map(|end| comparison["interval"][end].as_f64().unwrap());
    assert!((0.03..0.06).contains(&low) && (0.14..0.18).contains(&high), "{low} {high}");

    let end = results.harness(&["compare", "resnet20-w2a2-rtn", "resnet20-w2a2-qdrop-s1"]);
    assert_contains(&end.stdout, &["0 and 1", "difference -30.00 points", "< 0.0001"]);
}

#[test]
fn small_differences_are_called_insignificant_and_several_are_corrected() {
    let results = results();
    let record = results.cell("brecq", "W2A2", 0);
    results.add(&record, &first(77, 100));
    let end = results.harness(&["compare", "method(qdrop) & bits(w2a2) & seed(0)", "method(brecq)"]);
    assert_contains(&end.stdout, &["NOT significant at 5 % (p 0.2500)"]);
    let end = results.harness(&["compare", "method(qdrop) & bits(w2a2)", "method(brecq)", "method(genie-m)"]);
    assert_contains(
        &end.stdout,
        &[
            "(p 0.2500, corrected for 2 comparisons (Holm) 0.2500)",
            "(p 0.0020, corrected for 2 comparisons (Holm) 0.0039)",
        ],
    );
    assert_contains(&end.stdout, &["left out: resnet20-w2a2-qdrop-s1", "has no partner of seed 1"]);
}

#[test]
fn what_is_no_comparison_is_refused() {
    let results = results();
    let fails = |args: &[&str], code: i32, parts: &[&str]| {
        let end = results.harness(&[&["compare"], args].concat());
        assert_eq!((end.code, end.stdout.as_str()), (code, ""), "{args:?}: {}", end.stderr);
        assert_contains(&end.stderr, parts);
    };
    let right = first(50, 100);
    let mut other = results.record("made", &results.cell("rtn", "W3A3", 0), &right);
    other.hashes.test = "dd".repeat(32);
    results.store(&identified(other), &right);
    fails(&["method(qdrop) & bits(w2a2)", "bits(w3a3)"], 2, &["test images differ", "SHA-256 cccccccccc"]);
    // As runs from before hashes covered the order of images may be.
    let other = results.record("made", &results.cell("rtn", "W8A8", 0), &right);
    results.store_labelled(&other, &right, (0..100).map(|image| u32::from(image % 3 == 0)).collect());
    fails(
        &["method(qdrop) & bits(w2a2)", "bits(w8a8)"],
        96,
        &[&other.run_id, "labels of its test images, or their order, are not those of resnet20-w2a2-qdrop-s0"],
    );
    let mut other = results.record("made", &results.cell("rtn", "W4A4", 0), &right);
    other.cell.arch = "mobilenetv2-tiny".into();
    results.store(&identified(other), &right);
    fails(&["method(qdrop) & bits(w2a2)", "mobilenet"], 2, &["architectures differ (resnet20 and mobilenetv2-tiny)"]);
    fails(
        &["method(qdrop)", "method(genie-m)"],
        2,
        &["bits = W2A2 | W4A4", "narrow it to one, for example with & bits(W2A2)"],
    );
    fails(&["method(genie-m)", "method(genie-m) & seed(0)"], 2, &["both select run"]);
    fails(&["method(genie-m)", "methd(qdrop)"], 2, &["there is no predicate `methd`", "did you mean method?"]);
    fails(&["method(genie-m)", "method(adaround)"], 4, &["matches none of", "stored runs"]);
    fails(&["method(genie-m)"], 2, &["nothing to compare", "a grid file (.toml) alone"]);
    fails(&["grid.toml"], 4, &["nothing is published of resnet20 on fashion-mnist"]);
    fails(&["missing.toml"], 96, &["cannot read grid missing.toml"]);
    fails(&["method(genie-m)", "nothing"], 4, &["no stored run begins with \"nothing\""]);

    // Failed runs are left out; damaged predictions and altered records are named.
    let mut failed = results.record("made", &results.cell("adaround", "W2A2", 0), &right);
    (failed.status, failed.error, failed.metrics) = (metaaug::store::record::Status::Failed, Some("why".into()), None);
    results.store(&failed, &right);
    fails(&["method(genie-m)", "method(adaround)"], 4, &["failed runs alone", &failed.run_id]);
    let mut altered = results.record("made", &results.cell("brecq", "W2A2", 0), &right);
    altered.metrics.as_mut().unwrap().test_top1 = 0.99;
    let folder = results.store(&altered, &right);
    fails(
        &["method(genie-m)", "method(brecq)"],
        96,
        &[&altered.run_id, "metrics.test_top1 is 0.99", "50 of 100 predictions", "--fresh"],
    );
    std::fs::write(folder.join("predictions.safetensors"), "cut").unwrap();
    fails(&["method(genie-m)", "method(brecq)"], 96, &["predictions cannot be read", "--fresh"]);
    std::fs::write(folder.join("record.json"), "{").unwrap();
    fails(&["method(genie-m)", "method(brecq)"], 4, &["warning: skipping", "not a complete record"]);
}
