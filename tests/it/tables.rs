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
    for (cell, _) in results.planned("tables.toml") {
        let right = match (cell.method.as_str(), cell.bits.w) {
            ("rtn", 2) => 50,
            ("qdrop", 2) => 88 + cell.seed as usize,
            ("genie-m", 2) => 90 + cell.seed as usize,
            ("qdrop", _) => 95,
            _ => continue,
        };
        let right = first(right, 100);
        let mut record = results.planned_record("declared", &cell, &right);
        if (cell.method.as_str(), cell.bits.w, cell.seed) == ("qdrop", 4, 1) {
            (record.status, record.error, record.metrics) = (Status::Failed, Some("it broke | <b>".into()), None);
        }
        results.store(&record, &right);
    }
    results
}

#[test]
fn declared_tables_are_written_in_all_formats() {
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
            "[1] resnet20-w4a4-rtn-s0 ",
            "was not run",
            "failed: it broke",
            "McNemar's exact test",
        ],
    );
    assert_contains(
        &read("main.tex"),
        &["\\label{tab:tables-main-1}", "Everything at 5 \\% \\& more.", "\\textbf{90.50 $\\pm$ 0.71}"],
    );
    let parquet = std::fs::read(results.path().join("declared/tables/main.parquet")).unwrap();
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    let csv = read("main.csv");
    assert_eq!(csv.lines().next(), Some("method,bits,metric,n,mean,std,mark,failed,missing"));
    let qdrop = csv.lines().find(|line| line.starts_with("qdrop,W2A2,")).unwrap();
    assert!(qdrop.starts_with("qdrop,W2A2,test,2,0.885,0.0070") && qdrop.contains(",not-different,"), "{csv}");
    let failed = csv.lines().find(|line| line.starts_with("qdrop,W4A4,")).unwrap();
    assert!(failed.starts_with("qdrop,W4A4,test,1,0.95,,") && failed.contains("resnet20-w4a4-qdrop-s1-"), "{csv}");
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
        (format!("{table}metric = \"loss\"\n"), ["unknown metric `loss`", "known: full-precision, test"]),
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
    for (index, (cell, _)) in results.planned("page.toml").into_iter().enumerate() {
        let right = first(90 - index, 100);
        let mut record = results.planned_record("declared", &cell, &right);
        record.provenance.grid = evil.into();
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

#[test]
fn declared_figures_show_the_stored_numbers() {
    let results = results();
    let figure = |name: &str, rest: &str| format!("[[figure]]\nname = \"{name}\"\n{rest}\n");
    let figures = [
        figure("bits", "kind = \"lines\"\nx = [\"bits\"]\nseries = [\"method\"]"),
        figure("gap", "kind = \"bars\"\nx = [\"method\"]\ny = \"gap\"\nseries = [\"bits\"]\ncaption = \"Gap <b>\""),
        figure("map", "kind = \"heatmap\"\nx = [\"bits\"]\nseries = [\"method\"]"),
        figure("effect", "kind = \"ablation\"\nx = [\"method\"]\nfilter = \"bits(w2a2)\""),
        figure("cost", "kind = \"cost\"\nseries = [\"method\"]\nfilter = \"bits(w2a2)\""),
        figure("terms", "kind = \"meta-terms\""),
    ];
    results.write("figures.toml", &format!("{GRID}{}", figures.concat()));
    let end = results.harness(&["report", "figures.toml"]);
    assert_eq!((end.code, end.stderr.as_str()), (0, ""));
    let folder = results.path().join("declared/figures");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    for name in ["bits", "gap", "map", "effect", "cost", "terms"] {
        assert!(std::fs::read(folder.join(format!("{name}.png"))).unwrap().starts_with(b"\x89PNG"), "{name}");
        assert!(read(&format!("{name}.svg")).starts_with("<svg"), "{name}");
    }
    // Columns from many bits to few; what was not run is a row without a mean.
    assert_contains(
        &read("bits.csv"),
        &["method,bits,metric,n,mean,std\nrtn,W4A4,test,0,,\nrtn,W2A2,test,2,0.5,0.0\n"],
    );
    assert_contains(&read("bits.svg"), &["Genie-M", "W4A4", "test top-1 (%)", "full precision"]);
    assert_contains(&read("gap.csv"), &["W2A2,qdrop,gap,2,0.11"]);
    assert_contains(&read("map.svg"), &["Genie-M", "W2A2", "50.00", "–", "test top-1 (%)"]);
    assert_eq!(read("map.csv"), read("bits.csv"));
    // Of 100 images, RTN misses what QDrop's two seeds have right beyond the first 50.
    let effect = read("effect.csv");
    let qdrop = effect.lines().find(|line| line.starts_with("QDrop,RTN,0.385,")).unwrap_or_else(|| panic!("{effect}"));
    assert!(qdrop.contains(",2.0,") || qdrop.ends_with(",2.0,"), "{qdrop}");
    assert_contains(&read("effect.svg"), &["test top-1 over RTN (points)", "+38.50"]);
    assert_contains(
        &read("cost.csv"),
        &["method,wall_s_mean,wall_s_std,metric,n,mean,std", "qdrop,1.5,0.0,test,2,0.885,"],
    );
    assert_contains(&read("terms.svg"), &["no runs with a transform network"]);
    let page = std::fs::read_to_string(results.path().join("declared/report.html")).unwrap();
    assert_contains(&page, &["Gap &lt;b&gt;", "alt=\"effect\""]);
}

#[test]
fn a_wrong_figure_is_shown_in_its_place() {
    let results = Results::new();
    let figure = "[[figure]]\nname = \"main\"\nkind = \"lines\"\nx = [\"bits\"]\nseries = [\"method\"]\n";
    for (text, parts) in [
        (figure.replace("lines", "pie"), ["unknown kind of figure `pie`", "known: lines, bars"]),
        (figure.replace("\"method\"", "\"metod\""), ["no key \"metod\"", "did you mean method?"]),
        (figure.replace("\"method\"", "\"bits\""), ["key \"bits\" is there twice", "again"]),
        (figure.replace("x = [\"bits\"]\n", ""), ["a figure of kind lines has no x", "for example"]),
        (figure.replace("lines", "losses"), ["kind losses does not read x", "choose another kind"]),
        (figure.replace("main", "a/b"), ["not kebab-case", "it names a file"]),
        (format!("{figure}{figure}"), ["two figures are called \"main\"", "rename"]),
        (format!("{figure}filter = \"method(qdorp)\"\n"), ["matches none of 12 cells", "did you mean qdrop?"]),
        (format!("{figure}y = \"loss\"\n"), ["unknown metric `loss`", "known: full-precision, test"]),
        (
            figure.replace("series = [\"method\"]\n", ""),
            ["mixes cells that differ in method", "add \"method\" to series"],
        ),
    ] {
        results.write("grid.toml", &format!("{GRID}{text}"));
        let end = results.harness(&["plan", "grid.toml"]);
        assert_eq!(end.code, 2, "{text}: {}", end.stderr);
        assert_contains(&end.stderr, &parts);
        assert_contains(&end.stderr, &["grid.toml"]);
    }
}

#[test]
fn published_numbers_have_their_place_or_an_error() {
    let results = Results::new();
    let table = "[[table]]\nname = \"main\"\nrows = [\"method\"]\ncolumns = \"bits\"\n";
    for (text, parts) in [
        (format!("{table}published = [\"own\"]\n"), ["unknown value `own`", "official"]),
        (format!("{table}published-table = \"loses\"\n"), ["no table \"loses\" is published", "did you mean losses?"]),
        (
            format!("{table}metric = \"wall\"\npublished = [\"official\"]\n"),
            ["nothing of this metric is published", "drop it"],
        ),
        (
            "[[table]]\nname = \"a\"\nrows = [\"method\", \"bits\"]\ncolumns = \"seed\"\npublished = [\"rerun\"]\n"
                .to_string(),
            ["no place in columns of \"seed\"", "by network and bits"],
        ),
    ] {
        results.write("grid.toml", &format!("{GRID}{text}"));
        let end = results.harness(&["plan", "grid.toml"]);
        assert_eq!(end.code, 2, "{text}: {}", end.stderr);
        assert_contains(&end.stderr, &parts);
    }
    results.write("grid.toml", &format!("{GRID}{table}published-table = \"overfit\"\n"));
    let end = results.harness(&["report", "grid.toml"]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    assert_contains(&end.stdout, &["For orientation, not for comparison", "83.30"]);
}

#[test]
fn damaged_folders_are_named_and_skipped() {
    let results = results();
    let runs = results.path().join("declared/runs");
    let folder = |part: &str| {
        let mut folders = std::fs::read_dir(&runs).unwrap().map(|entry| entry.unwrap().path());
        folders.find(|path| path.to_string_lossy().contains(part)).unwrap()
    };
    let truncated = folder("w2a2-rtn-s0").join("record.json");
    let text = std::fs::read_to_string(&truncated).unwrap();
    std::fs::write(&truncated, &text[..text.len() / 2]).unwrap();
    std::fs::remove_file(folder("w2a2-rtn-s1").join("record.json")).unwrap();
    let edited = folder("w2a2-qdrop-s0").join("record.json");
    let text = std::fs::read_to_string(&edited).unwrap();
    std::fs::write(&edited, text.replace("\"method\":", "\"methood\":")).unwrap();
    let end = results.harness(&["report", "tables.toml", "--quiet"]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    let page = std::fs::read_to_string(results.path().join("declared/report.html")).unwrap();
    for part in ["w2a2-rtn-s0", "w2a2-rtn-s1", "w2a2-qdrop-s0"] {
        assert!(end.stderr.lines().any(|line| line.starts_with("warning: skipping") && line.contains(part)), "{part}");
        assert!(page.contains("was skipped") && page.contains(part), "{part}");
    }
    let main = std::fs::read_to_string(results.path().join("declared/tables/main.md")).unwrap();
    assert_contains(&main, &["| RTN | – [1] [2] | – [3] [4] |", "**90.50 ± 0.71**"]);
}
