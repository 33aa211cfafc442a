//! What the harness is made of: where `unsafe` may stand, and why each crate is there that it depends on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules that may hold `unsafe`: these files and folders. CONTRIBUTING says so as well.
const UNSAFE: [&str; 10] = [
    "crates/ptq/src/ops/conv/matrix.rs",
    "crates/ptq/src/ops/cuda/",
    "crates/ptq/src/ops/fresh.rs",
    "src/allocator.rs",
    "src/cli/signals.rs",
    "src/data/decode/jpeg/library.rs",
    "src/main.rs",
    // Of tests, and what a bench asks of the driver.
    "benches/steps/device_memory.rs",
    "crates/ptq/tests/it/kernels/host.rs",
    "tests/it/allocations.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let below = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
    entries.flat_map(below).filter(|path| path.extension().is_some_and(|end| end == "rs")).collect()
}

/// The lint is denied for both crates; who allows it is one of those that are named.
#[test]
fn unsafe_code_stands_in_named_modules_alone() {
    let lints = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(lints.contains("\nunsafe_code = \"deny\"\n"));
    for crate_of_ours in ["", "crates/ptq"] {
        let manifest = std::fs::read_to_string(root().join(crate_of_ours).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true\n"), "{crate_of_ours}");
    }
    let allow = concat!("(", "unsafe_code");
    let allowing: BTreeSet<String> = ["src", "crates", "tests", "benches", "build.rs"]
        .iter()
        .flat_map(
            |folder| if folder.ends_with(".rs") { vec![root().join(folder)] } else { sources(&root().join(folder)) },
        )
        .filter(|path| std::fs::read_to_string(path).unwrap().contains(allow))
        .map(|path| path.strip_prefix(root()).unwrap().display().to_string())
        .collect();
    let is_named = |path: &String| UNSAFE.iter().any(|named| path.starts_with(named));
    let others: Vec<&String> = allowing.iter().filter(|path| !is_named(path)).collect();
    assert!(others.is_empty(), "{others:?}");
    let contributing = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    for module in [
        "`allocator`",
        "`cli::signals`",
        "`data::decode::jpeg::library`",
        "`main`",
        "`ops::conv::matrix`",
        "`ops::fresh`",
        "`ops::cuda`",
    ] {
        assert!(contributing.contains(module), "{module}");
    }
}

/// Names of the dependencies in a manifest, of every kind.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let table: toml::Table = toml::from_str(manifest).unwrap();
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = table.get("target").and_then(toml::Value::as_table).into_iter().flat_map(|targets| targets.values());
    let tables = targets.filter_map(toml::Value::as_table).chain([&table]);
    let named = tables.flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    named.flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn every_direct_dependency_is_listed_with_its_reason() {
    let contributing = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let section = contributing.split("\n## Dependencies\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| crates "));
    let listed: BTreeSet<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split([',', ';']))
        .map(|name| name.trim().to_string())
        .collect();
    let read = |path: &str| dependencies(&std::fs::read_to_string(root().join(path)).unwrap());
    let mut ours: BTreeSet<String> = ["Cargo.toml", "crates/ptq/Cargo.toml"].into_iter().flat_map(read).collect();
    ours.remove("ptq");
    let (missing, left_over): (Vec<_>, Vec<_>) =
        (ours.difference(&listed).collect(), listed.difference(&ours).collect());
    assert!(missing.is_empty() && left_over.is_empty(), "without a reason: {missing:?}; not used: {left_over:?}");
}
