//! Tables that a grid declares, from runs whose numbers are known.

use crate::cli::assert_contains;
use crate::stored::{Results, first};
use metaaug::store::record::Status;

const GRID: &str = r#"
name = "declared"
title = "Declared"
[base]
arch = "resnet20"
calib-images = 32
[axes]
bits = ["W4A4", "W2A2"]
method = ["rtn", "qdrop", "genie-m"]
seed = [0, 1]
"#;

const TABLES: &str = r#"
[[table]]
name = "main"
caption = "Everything at 5 % & more."
rows = ["method"]
columns = "bits"
significance = true
[[table]]
name = "gap"
rows = ["bits", "method"]
columns = "seed"
metric = "gap"
filter = "method(qdrop | genie-m)"
"#;

/// At W2A2 RTN is worst, QDrop and Genie-M almost alike; one run failed, some were not run.
fn results() -> Results {
    let results = Results::new();
    results.write("tables.toml", &format!("{GRID}{TABLES}"));
    for (cell, id) in results.planned("tables.toml") {
        let right = match (cell.method.as_str(), cell.bits.w) {
            ("rtn", 2) => 50,
            ("qdrop", 2) => 88 + cell.seed as usize,
            ("genie-m", 2) => 90 + cell.seed as usize,
            ("qdrop", _) => 95,
            _ => continue,
        };
        let right = first(right, 100);
        let mut record = results.record("declared", &cell, &right);
        record.run_id = id;
        if (cell.method.as_str(), cell.bits.w, cell.seed) == ("qdrop", 4, 1) {
            (record.status, record.error, record.metrics) = (Status::Failed, Some("it broke | <b>".into()), None);
        }
        results.store(&record, &right);
    }
    results
}

#[test]
fn declared_tables_are_written_in_three_formats() {
    let results = results();
    let end = results.harness(&["report", "tables.toml"]);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
    assert_contains(&end.stdout, &["table main", "table gap"]);
    let read = |name: &str| std::fs::read_to_string(results.path().join("declared/tables").join(name)).unwrap();
    let main = read("main.md");
    assert_contains(
        &main,
        &[
            "Everything at 5 % & more. Test top-1 in percent.",
            "| method | W4A4 | W2A2 |",
            "| Full precision | 92.76 | 92.76 |",
            "| RTN | – [1] [2] | 50.00 ± 0.00 |",
            "| QDrop | 95.00 (1) [3] | 88.50 ± 0.71 † |",
            "| Genie-M | – [4] [5] | **90.50 ± 0.71** |",
            "[1] resnet20-w4a4-rtn-s0-",
            "was not run",
            "failed: it broke",
            "McNemar's exact test",
        ],
    );
    assert_contains(
        &read("main.tex"),
        &["\\label{tab:tables-main-1}", "Everything at 5 \\% \\& more.", "\\textbf{90.50 $\\pm$ 0.71}"],
    );
    assert_eq!(read("main.csv").lines().nth(3), Some("QDrop,95.00,88.50 ± 0.71 †"));
    let gap = read("gap.md");
    assert_contains(&gap, &["| bits, method | seed 0 | seed 1 |", "| W2A2, QDrop | 12.00 | 11.00 |"]);
    assert!(!gap.contains("RTN") && !gap.contains("**"), "{gap}");

    // Without predictions there is nothing to test: said, and the table is made all the same.
    let store = results.path().join("declared/runs");
    for folder in std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()) {
        if folder.file_name().unwrap().to_string_lossy().contains("w2a2-qdrop") {
            std::fs::remove_file(folder.join("predictions.safetensors")).unwrap();
        }
    }
    assert_eq!(results.harness(&["report", "tables.toml", "--quiet"]).code, 0);
    assert_contains(&read("main.md"), &["| QDrop | 95.00 (1) [3] | 88.50 ± 0.71 [", "not tested against the best"]);
}

#[test]
fn a_wrong_table_is_shown_in_its_place() {
    let results = Results::new();
    let table = "[[table]]\nname = \"main\"\nrows = [\"method\"]\ncolumns = \"bits\"\n";
    for (text, parts) in [
        (table.replace("\"method\"", "\"metod\""), ["no key \"metod\"", "did you mean method?"]),
        (table.replace("\"bits\"", "\"method\""), ["key \"method\" is there twice", "again"]),
        (table.replace("[\"method\"]", "[]"), ["a table has no rows", "rows = [\"method\"]"]),
        (table.replace("main", "../main"), ["not kebab-case", "it names a file"]),
        (format!("{table}{table}"), ["two tables are called \"main\"", "rename"]),
        (format!("{table}filter = \"method(qdorp)\"\n"), ["matches none of 12 cells", "did you mean qdrop?"]),
        (format!("{table}filter = \"bits(w2a2) & method\"\n"), ["write method(value)", "grid.toml:15:24]"]),
        (format!("{table}metric = \"gap\"\nsignificance = true\n"), ["of test predictions alone", "drop it"]),
        (format!("{table}metric = \"loss\"\n"), ["unknown value `loss`", "known: test"]),
        (format!("{table}colour = 1\n"), ["unknown field `colour`", "columns"]),
        (table.replace("\"method\"", "\"setting\""), ["mixes cells that differ in method", "add \"method\" to rows"]),
    ] {
        results.write("grid.toml", &format!("{GRID}{text}"));
        let end = results.harness(&["plan", "grid.toml"]);
        assert_eq!(end.code, 2, "{text}: {}", end.stderr);
        assert_contains(&end.stderr, &parts);
        assert_contains(&end.stderr, &["grid.toml"]);
    }
}

#[test]
fn the_page_is_self_contained_and_takes_nothing_for_markup() {
    let results = Results::new();
    let evil = "<script>document.title = 'taken'</script>";
    let grid = GRID.replace("\"Declared\"", &format!("\"A & B {evil}\"\nabout = \"{evil}\""));
    results.write("page.toml", &format!("{grid}{TABLES}").replace("Everything", evil));
    for (index, (cell, id)) in results.planned("page.toml").into_iter().enumerate() {
        let right = first(90 - index, 100);
        let mut record = results.record("declared", &cell, &right);
        (record.run_id, record.provenance.grid) = (id, evil.into());
        if index == 3 {
            (record.status, record.error, record.metrics) = (Status::Failed, Some(evil.into()), None);
        }
        results.store(&record, &right);
    }
    std::fs::create_dir(results.path().join("declared/runs/<b onclick=x>")).unwrap();
    let end = results.harness(&["report", "page.toml", "--quiet"]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    let page = std::fs::read_to_string(results.path().join("declared/report.html")).unwrap();
    let escaped = "&lt;script&gt;document.title = &#x27;taken&#x27;&lt;&#x2f;script&gt;";
    // The title twice, the text about it, a caption, 12 runs, and the error in the tables and among what failed.
    assert!(page.matches(escaped).count() >= 20);
    assert_contains(
        &page,
        &["A &amp; B", "&lt;b onclick=x&gt;", "<tbody id=\"run-resnet20-w4a4-rtn-s0-", "arch = &quot;resnet20&quot;"],
    );
    assert_eq!(page.matches("<script>").count(), 1);
    for outside in ["<b onclick", "src=\"http", "href=\"http", "href=\"//", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_contains(
        &page,
        &["default-src 'none'", "src=\"data:image&#x2f;svg+xml;base64", "<h3>main</h3>", "class=\"best\""],
    );
    // The same records give the same bytes.
    results.harness(&["report", "page.toml", "--quiet"]);
    assert_eq!(std::fs::read_to_string(results.path().join("declared/report.html")).unwrap(), page);
}
