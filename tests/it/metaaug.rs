//! MetaAug, as a user runs it.

use crate::cli::{Bench, Ended};
use metaaug::store::{Predictions, Store, read_traces};

const GRID: &str = r#"
name = "meta"
[base]
arch = "resnet20"
bits = "W2A2"
calib-images = 16
recipe = { iterations = 2, batch = 8 }
transform = { base = 2, depth = 1, warmup-iterations = 3, warmup-batch = 8 }
meta = { iterations = 1, batch = 8, outer-batch = 8 }
[variants.metaaug]
method = "metaaug"
[variants.qdrop-spatial]
method = "qdrop"
transform = { net = "spatial" }
augment = ["flip", "cutmix"]
"#;

#[test]
fn a_transform_is_trained_recorded_and_shown() {
    let bench = Bench::new(GRID);
    let Ended { code, stderr, .. } = bench.harness(&["run", "grid.toml"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("transform.base") && stderr.contains("meta.iterations"), "{stderr}");
    let results = bench.path().join("results/meta");
    assert!(std::fs::read(results.join("transforms.png")).unwrap().starts_with(b"\x89PNG"));
    let shown = bench.harness(&["show", "resnet20-w2a2-metaaug-metaaug-s0"]).stdout;
    for part in ["meta ", "val-kl", "weight 30000", "gradient norm", "net = \"unet\""] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    // The warmed-up network is used again, and the run is the same.
    let again = ["run", "grid.toml", "--results", "again", "--filter", "variant(metaaug)"];
    let Ended { code, .. } = bench.harness(&again);
    assert_eq!(code, 0);
    let predictions = |folder: &str| {
        let store = Store::new(&bench.path().join(folder), "meta");
        let mut records = store.scan().unwrap().records.into_iter();
        let id = records.find(|record| record.cell.method == "metaaug").unwrap().run_id;
        Predictions::read(&store.run_folder(&id)).unwrap()
    };
    assert_eq!(predictions("results"), predictions("again"));
}

#[test]
fn a_diverged_transform_names_unit_iteration_and_term_and_keeps_its_losses() {
    let bench = Bench::new(GRID);
    let set = ["--set", "meta.lr=1e30", "--set", "meta.iterations=3", "--filter", "variant(metaaug)"];
    let Ended { code, .. } = bench.harness(&[&["run", "grid.toml"], &set[..]].concat());
    assert_eq!(code, 100);
    let store = Store::new(&bench.path().join("results"), "meta");
    let record = store.scan().unwrap().records.remove(0);
    let error = record.error.unwrap();
    assert!(error.contains("layer1.0, meta-loss term ") && error.contains("iteration 2"), "{error}");
    let traces = read_traces(&store.run_folder(&record.run_id)).unwrap();
    let last = traces.last().unwrap();
    assert_eq!(
        (last.phase.as_str(), last.unit.as_str(), last.iterations.as_slice()),
        ("meta", "layer1.0", &[1, 2][..])
    );
}

#[test]
fn the_gradient_is_checked_for_the_configured_network_and_terms() {
    let bench = Bench::new(GRID);
    // A margin so large that its term has a gradient.
    let set = ["meta.inner=sgd", "meta.inner-lr-factor=100", "meta.temperature=1", "meta.eps=10"];
    let set: Vec<&str> = set.into_iter().flat_map(|set| ["--set", set]).collect();
    let Ended { code, stdout, stderr } = bench.harness(&[&["check-gradient", "grid.toml"], &set[..]].concat());
    assert_eq!(code, 0, "{stdout}{stderr}");
    for term in ["val-kl", "margin", "distribution"] {
        let line = stdout.lines().find(|line| line.contains(term)).unwrap();
        assert!(line.trim_end().ends_with("right"), "{line}");
    }
    let differences = [&set[..], &["--set", "meta.derivative=finite-difference"]].concat();
    let Ended { code, stdout, .. } = bench.harness(&[&["check-gradient", "grid.toml"], &differences[..]].concat());
    assert!(code == 100 && stdout.contains("WRONG"), "{stdout}");
}

#[test]
fn impossible_transforms_are_refused_before_any_work() {
    for (set, part) in [
        ("transform.depth=5", "most 4"),
        ("transform.net=unett", "did you mean unet?"),
        ("meta.eps=0", "meta.eps"),
        ("terms.margin=-1", "terms.margin"),
        ("meta.unroll=2", "meta.unroll"),
        ("augment=[\"blur\"]", "blur"),
        ("recipe.granularity=layer", "recipe.granularity"),
    ] {
        let bench = Bench::new(GRID);
        let Ended { code, stderr, .. } = bench.harness(&["run", "grid.toml", "--set", set]);
        assert!(code == 2 && stderr.contains(part), "{set}: {stderr}");
        assert!(!bench.path().join("results").exists(), "{set}");
    }
}
