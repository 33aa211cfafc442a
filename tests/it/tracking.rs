//! Notes, tags, columns and differences of stored runs; what is stored of a cell as a filter of plans.

use crate::cli::assert_contains;
use crate::stored::{Results, first};
use metaaug::store::record::Status;
use serde_json::Value;

/// QDrop and Genie-M with two seeds each in `made`; QDrop's seed 1 failed.
fn results() -> Results {
    let results = Results::new();
    for (method, seed, right) in [("qdrop", 0, 80), ("genie-m", 0, 90), ("genie-m", 1, 91)] {
        results.add(&results.cell(method, "W2A2", seed), &first(right, 100));
    }
    let mut failed = results.record("made", &results.cell("qdrop", "W2A2", 1), &first(1, 1));
    (failed.status, failed.error, failed.metrics) = (Status::Failed, Some("loss (NaN), stopped".into()), None);
    results.store(&failed, &[]);
    results
}

fn ok(results: &Results, args: &[&str]) -> String {
    let end = results.harness(args);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""), "{args:?}");
    end.stdout
}

#[test]
fn notes_and_tags_are_shown_and_selected_by() {
    let results = results();
    assert!(!ok(&results, &["list"]).contains("tag"));
    let tagged = ok(&results, &["tag", "method(genie-m)", "paper", "draft"]);
    assert_eq!(tagged.matches(": draft, paper").count(), 2, "{tagged}");
    ok(&results, &["tag", "resnet20-w2a2-genie-m-s1", "--remove", "draft"]);
    ok(&results, &["note", "resnet20-w2a2-genie-m-s1", "best, \"by far\"\nsecond line"]);

    let ids = |filter: &str| ok(&results, &["list", "--filter", filter, "--columns", "method,seed", "--format", "csv"]);
    assert_eq!(ids("tag(paper)"), "method,seed\ngenie-m,0\ngenie-m,1\n");
    assert_eq!(ids("tag(dr*)"), "method,seed\ngenie-m,0\n");
    assert_eq!(ids("not tag(*)"), "method,seed\nqdrop,0\nqdrop,1\n");
    assert_eq!(ids("note(*by far*) | error(\"*(nan)*\")"), "method,seed\ngenie-m,1\nqdrop,1\n");

    assert_contains(&ok(&results, &["list"]), &["tag", "draft, paper", "best, \"by far\""]);
    assert_contains(&ok(&results, &["list", "--format", "csv"]), &[",paper,\"best, \"\"by far\"\"\nsecond line\"\n"]);
    assert_contains(
        &results.harness(&["show", "resnet20-w2a2-genie-m-s1"]).stdout,
        &["tags               paper", "best, \"by far\"", "processor          one (AVX2)"],
    );
    let json: Value = serde_json::from_str(&ok(&results, &["list", "--filter", "note(*)", "--json"])).unwrap();
    assert_eq!(json["runs"][0]["tags"], Value::from(vec!["paper"]));
    assert_eq!(json["runs"][0]["notes"][0]["text"], "best, \"by far\"\nsecond line");

    let fails = |args: &[&str], code: i32, parts: &[&str]| {
        let end = results.harness(args);
        assert_eq!((end.code, end.stdout.as_str()), (code, ""), "{args:?}: {}", end.stderr);
        assert_contains(&end.stderr, parts);
    };
    fails(&["tag", "all()", "Not Kebab"], 2, &["tag \"Not Kebab\" is not lower-case words"]);
    fails(&["tag", "all()", "a", "--remove", "a"], 2, &["given and taken away"]);
    fails(&["tag", "resnet20", "a"], 2, &["\"resnet20\" names 4 runs, give one: made/resnet20-w2a2-genie-m-s0-"]);
    fails(&["tag", "tag(nothing)", "a"], 4, &["matches none of 4 stored runs"]);
    fails(&["note", "resnet20-w2a2-qdrop-s0", " "], 2, &["the note is empty"]);
    fails(&["note", "method(genie-m)", "x"], 2, &["names 2 runs"]);
}

#[test]
fn columns_are_chosen_in_every_format() {
    let results = results();
    let args = ["list", "--columns", "method,test,wall,started,recipe.iterations,meta.lr", "--sort", "test"];
    let table = ok(&results, &args);
    assert_contains(&table, &["test %", "wall s", "91.00", "1970-01-01T00:00:00Z", "20000", "4 runs, 1 failed"]);
    let csv = ok(&results, &[&args[..], &["--format", "csv", "--reverse"]].concat());
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[1], "genie-m,0.91,1.5,1970-01-01T00:00:00Z,20000,");
    assert_eq!(lines[4], "qdrop,,1.5,1970-01-01T00:00:00Z,20000,");
    let json: Value = serde_json::from_str(&ok(&results, &[&args[..], &["--format", "json"]].concat())).unwrap();
    assert_eq!(json["runs"][0]["test"], Value::Null);
    assert_eq!((&json["runs"][3]["test"], &json["runs"][3]["method"]), (&Value::from(0.91), &Value::from("genie-m")));
    assert_eq!(json["runs"][0].as_object().unwrap().len(), 6);
    let end = results.harness(&["list", "--columns", "run,tests"]);
    assert_eq!(end.code, 2);
    assert_contains(&end.stderr, &["--columns: there is no key \"tests\"", "did you mean test?"]);
    assert_eq!(results.harness(&["list", "--json", "--format", "csv"]).code, 2);
}

#[test]
fn a_difference_names_what_differs_and_nothing_else() {
    let results = results();
    let args = ["show", "resnet20-w2a2-genie-m-s1", "--diff", "resnet20-w2a2-genie-m-s0"];
    let text = ok(&results, &args);
    let columns = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = text.lines().skip(2).map(columns).collect();
    assert_eq!(
        lines,
        ["configuration A B", "seed 1 0", "metrics A B A - B", "test % 91.00 90.00 +1.00", "gap % 9.00 10.00 -1.00"]
    );
    let json: Value = serde_json::from_str(&ok(&results, &[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["configuration"].as_array().unwrap().len(), 1);
    assert!((json["metrics"][0]["difference"].as_f64().unwrap() - 0.01).abs() < 1e-12);
    let same = ok(&results, &["show", "resnet20-w2a2-qdrop-s0", "--diff", "resnet20-w2a2-qdrop-s0"]);
    assert_contains(&same, &["the same configuration", "the same metrics"]);
    let failed = ok(&results, &["show", "resnet20-w2a2-qdrop-s0", "--diff", "resnet20-w2a2-qdrop-s1"]);
    assert_contains(&failed, &["status", "failed", "loss (NaN), stopped", "–"]);
}

#[test]
fn a_plan_is_filtered_by_what_is_stored_of_its_cells() {
    let results = Results::new();
    results.write(
        "plan.toml",
        "name = \"plan\"\n[base]\narch = \"resnet20\"\nbits = \"W2A2\"\ncalib-images = 32\n\
         [axes]\nmethod = [\"rtn\", \"qdrop\"]\nseed = [0, 1]\n",
    );
    for (cell, _) in results.planned("plan.toml") {
        let mut record = results.planned_record("plan", &cell, &first(50 + cell.seed as usize, 100));
        match (cell.method.as_str(), cell.seed) {
            ("rtn", _) => (),
            (_, 0) => (record.status, record.error, record.metrics) = (Status::Failed, Some("why".into()), None),
            _ => continue,
        }
        results.store(&record, &first(50, 100));
    }
    let slugs = |filter: &str| {
        let plan = ok(&results, &["plan", "plan.toml", "--filter", filter]);
        let slug = |line: &str| Some(line.split_once("resnet20-w2a2-")?.1.rsplit_once('-')?.0.to_string());
        plan.lines().filter_map(slug).collect::<Vec<_>>()
    };
    assert_eq!(slugs("status(failed)"), ["qdrop-s0"]);
    assert_eq!(slugs("status(pending)"), ["qdrop-s1"]);
    assert_eq!(slugs("not status(done)"), ["qdrop-s0", "qdrop-s1"]);
    assert_eq!(slugs("test(>50%)"), ["rtn-s1"]);
    assert_eq!(slugs("run(*-rtn-s0-*)"), ["rtn-s0"]);
    let end = results.harness(&["run", "plan.toml", "--filter", "status(failed)", "--dry-run"]);
    assert_contains(&end.stdout, &["resnet20-w2a2-qdrop-s0", "1 of 1 cells would run"]);
    ok(&results, &["tag", "method(rtn) & seed(1)", "paper"]);
    assert_eq!(slugs("tag(paper)"), ["rtn-s1"]);
    let end = results.harness(&["plan", "plan.toml", "--filter", "status(fialed)"]);
    assert_eq!(end.code, 4);
    assert_contains(&end.stderr, &["matches none of 4 cells", "did you mean failed? known: done, failed, pending"]);
}

#[test]
fn two_experiments_of_one_name_are_not_mixed() {
    let results = results();
    // The stored runs say that grid.toml, which is there and called so too, made them.
    results.write("other.toml", "name = \"made\"\n[base]\narch = \"resnet20\"\nbits = \"W2A2\"\nmethod = \"rtn\"\n");
    for verb in ["run", "report"] {
        let end = results.harness(&[verb, "other.toml"]);
        assert_eq!(end.code, 2, "{}", end.stderr);
        assert_contains(&end.stderr, &["two experiments are called \"made\": other.toml and grid.toml", "rename one"]);
    }
    assert_eq!(results.harness(&["report", "grid.toml", "--quiet"]).code, 0);
    assert_eq!(results.harness(&["plan", "other.toml"]).code, 0);
}
