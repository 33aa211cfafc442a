//! `harness rm` and `harness gc`.

use crate::cli::{assert_contains, ended};
use crate::stored::{Results, first, identified};
use assert_cmd::Command;
use metaaug::store::Store;
use metaaug::store::record::Status;
use std::path::PathBuf;

/// Names of the runs of experiment `made`, and of what else is in its folder.
fn names(results: &Results) -> Vec<String> {
    let entries = std::fs::read_dir(results.path().join("made/runs")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".lock");
    names.sort();
    names
}

fn fail(results: &Results, seed: u64) -> PathBuf {
    let mut failed = results.record("made", &results.cell("qdrop", "W2A2", seed), &first(1, 1));
    (failed.status, failed.error, failed.metrics) = (Status::Failed, Some("why".into()), None);
    results.store(&failed, &[])
}

#[test]
fn nothing_goes_without_yes_and_with_it_only_what_was_listed() {
    let results = Results::new();
    let kept = results.add(&results.cell("qdrop", "W2A2", 0), &first(80, 100));
    for seed in [1, 2] {
        fail(&results, seed);
    }
    let before = names(&results);
    let dry = results.harness(&["rm", "status(failed)"]);
    assert_eq!(dry.code, 0, "{}", dry.stderr);
    assert_contains(&dry.stdout, &["qdrop-s1", "qdrop-s2", "asked for", "2 would be removed", "--yes removes them"]);
    assert!(!dry.stdout.contains("qdrop-s0"));
    assert_eq!(names(&results), before);
    let end = results.harness(&["rm", "status(failed)", "resnet20-w2a2-qdrop-s1", "--yes"]);
    assert_contains(&end.stdout, &["2 removed"]);
    assert_eq!(names(&results), std::slice::from_ref(&kept));

    let fails = |args: &[&str], code: i32, part: &str| {
        let end = results.harness(&[&["rm"], args, &["--yes"]].concat());
        assert_eq!(end.code, code, "{}", end.stderr);
        assert_contains(&end.stderr, &[part]);
    };
    results.add(&results.cell("qdrop", "W2A2", 1), &first(80, 100));
    fails(&["status(failed)"], 4, "matches none of 2 stored runs");
    fails(&["resnet20-w2a2-qdrop"], 2, "names 2 runs");
    fails(&["method=qdrop"], 2, "write method(qdrop)");
    fails(&["nothing"], 4, "no stored run begins with");
    assert_eq!(names(&results).len(), 2);
    // A folder that holds no record is removed by its name alone.
    std::fs::write(results.path().join("made/runs").join(&kept).join("record.json"), "{").unwrap();
    assert_contains(&results.harness(&["rm", &kept, "--yes"]).stdout, &["its record cannot be read", "1 removed"]);
    assert_eq!(names(&results).len(), 1);
}

#[test]
fn what_another_process_writes_is_kept() {
    let results = Results::new();
    fail(&results, 1);
    let store = Store::new(&results.path(), "made");
    let lock = store.lock().unwrap();
    let half = results.path().join("made/runs/.writing-now");
    std::fs::create_dir(&half).unwrap();
    for args in [&["rm", "status(failed)", "--yes"][..], &["rm", "status(failed)"], &["gc", "--yes"], &["gc"]] {
        let end = results.harness(args);
        assert_eq!(end.code, 100, "{}", end.stdout);
        assert_contains(&end.stderr, &["of made, which another harness is running"]);
        assert_eq!((end.stdout.contains("nothing to remove"), names(&results).len()), (true, 2), "{}", end.stdout);
    }
    drop(lock);
    let end = results.harness(&["gc", "--yes"]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    assert_contains(&end.stdout, &["left by an interrupted run", "failed", "2 removed"]);
    assert!(names(&results).is_empty());
}

#[test]
fn gc_takes_what_nobody_needs_and_leaves_what_somebody_marked() {
    let results = Results::new();
    results.write("grid.toml", "name = \"made\"\n[base]\narch = \"resnet20\"\nmethod = \"rtn\"\nbits = \"W2A2\"\n");
    let (cell, id) = results.planned("grid.toml").remove(0);
    let made = results.planned_record("made", &cell, &first(80, 100));
    results.store(&made, &first(80, 100));
    let unmade = results.add(&results.cell("qdrop", "W4A4", 0), &first(80, 100));
    fail(&results, 1);
    let marked = fail(&results, 2);
    assert_eq!(results.harness(&["note", marked.file_name().unwrap().to_str().unwrap(), "look"]).code, 0);
    let mut outdated = results.record("made", &results.cell("qdrop", "W2A2", 3), &first(80, 100));
    outdated.method_revision = 99;
    results.store(&identified(outdated), &first(80, 100));
    let damaged = results.path().join("made/runs/damaged");
    std::fs::create_dir(&damaged).unwrap();

    let dry = results.harness(&["gc"]);
    assert_contains(&dry.stdout, &["qdrop-s1", "failed", "qdrop-s3", "done by revision 99", "2 would be removed"]);
    assert_contains(&dry.stderr, &["kept:", "damaged", "`harness rm` removes it"]);
    let end = results.harness(&["gc", "grid.toml", "--yes"]);
    assert_contains(&end.stdout, &["no cell of the grid makes it", "3 removed"]);
    let marked = marked.file_name().unwrap().to_string_lossy().into_owned();
    let left = names(&results);
    assert_eq!(left.len(), 3, "{left:?}");
    assert!([&id, &marked, &"damaged".to_string()].iter().all(|name| left.contains(name)), "{left:?}");
    assert!(!left.contains(&unmade));
    assert_contains(&results.harness(&["gc"]).stdout, &["nothing to remove"]);
}

#[test]
fn gc_cuts_the_cache_to_its_limit() {
    let results = Results::new();
    let cache = results.path().join("cache");
    std::fs::create_dir_all(cache.join("transform")).unwrap();
    let gc = |args: &[&str]| {
        let mut command = Command::cargo_bin("harness").unwrap();
        command.env("HARNESS_CACHE", &cache).arg("gc").args(args).arg("--results").arg(results.path());
        ended(command)
    };
    let [old, new] = ["0", "1"].map(|digit| cache.join("transform").join(digit.repeat(32)));
    for (path, age) in [(&old, 100), (&new, 1)] {
        std::fs::write(path, vec![0; 3000]).unwrap();
        let used = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        std::fs::File::options().append(true).open(path).unwrap().set_modified(used).unwrap();
    }
    assert_contains(&gc(&[]).stdout, &["nothing to remove"]);
    assert_contains(
        &gc(&["--cache-limit", "4kB"]).stdout,
        &["transform/00000000", "cache, last used", "1 would be removed, 2.9 KiB"],
    );
    assert!(old.exists());
    assert_contains(&gc(&["--cache-limit", "4kB", "--yes"]).stdout, &["1 removed"]);
    assert!(!old.exists() && new.exists());
    // The folder of the cache may be anybody's.
    std::fs::write(cache.join("thesis.tex"), vec![0; 9000]).unwrap();
    assert_contains(&gc(&["--cache-limit", "4kB", "--yes"]).stdout, &["nothing to remove"]);
    let end = gc(&["--cache-limit", "much"]);
    assert_eq!(end.code, 2);
    assert_contains(&end.stderr, &["\"much\" is no number of bytes"]);
}
