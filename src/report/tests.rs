use super::*;
use crate::experiment::{Metric, RunId};
use crate::published::Kind;
use crate::store::State;
use parquet::record::Field;
use polars::prelude::*;
use std::io::Cursor;

const SUBJECT: Subject = Subject { title: "A title", grid: "experiments/x.toml" };

/// Three seeds of QDrop and one of RTN at two widths, one failed run among them.
fn records() -> Vec<Record> {
    vec![
        Record::sample("rtn-w4", "rtn", "W4A4", 0).with_top1(0.90, 0.91),
        Record::sample("rtn-w2", "rtn", "W2A2", 0).failed("the loss became NaN"),
        Record::sample("q-w2-0", "qdrop", "W2A2", 0).with_top1(0.80, 0.82),
        Record::sample("q-w2-1", "qdrop", "W2A2", 1).with_top1(0.82, 0.82),
        Record::sample("q-w2-2", "qdrop", "W2A2", 2).with_top1(0.84, 0.85),
        Record::sample("q-w4-0", "qdrop", "W4A4", 0).with_top1(0.895, 0.90),
    ]
}

#[test]
fn statistics_are_those_computed_by_hand() {
    let blocks = accuracy::blocks(&records());
    let [block] = &blocks[..] else { panic!("{blocks:?}") };
    assert_eq!(block.bits.iter().map(ToString::to_string).collect::<Vec<_>>(), ["W4A4", "W2A2"]);
    assert_eq!(block.rows.iter().map(|row| row.title()).collect::<Vec<_>>(), ["RTN", "QDrop"]);
    let entry = block.rows[1].entries[1].summary.as_ref().unwrap();
    assert_eq!(entry.n, 3);
    assert!((entry.test.mean - 0.82).abs() < 1e-12 && (entry.test.std.unwrap() - 0.02).abs() < 1e-12);
    assert!((entry.gap.mean - 0.01).abs() < 1e-12 && (entry.gap.std.unwrap() - 0.01).abs() < 1e-12);
    assert_eq!(block.rows[1].entries[0].summary.as_ref().unwrap().test.std, None);
}

#[test]
fn markdown_marks_the_best_and_names_what_failed() {
    let text = render(&records(), &SUBJECT).unwrap().markdown;
    for part in [
        "# A title",
        "`harness report experiments/x.toml`",
        "| Full precision | 92.76 | 92.76 |",
        "| RTN | **90.00** (1) | – [1] |",
        "| QDrop | 89.50 (1) | **82.00 ± 2.00** |",
        "[1] rtn-w2 failed: the loss became NaN",
        "up to 3 seeds",
        "stay at 8 bits",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert!(!text.contains("revisions"), "{text}");
}

#[test]
fn several_or_modified_revisions_are_said() {
    let mut records = records();
    records[0].provenance.git_revision = "abc-dirty".into();
    let text = render(&records, &SUBJECT).unwrap().markdown;
    assert!(text.contains("different revisions of the harness: 0123456789, abc-dirty"), "{text}");
    assert!(text.contains("uncommitted changes"), "{text}");
}

#[test]
fn variants_settings_and_networks_are_kept_apart() {
    let mut records = records();
    records[3].cell.variant = Some("no-drop".into());
    records[4].cell.setting = ptq::recipe::Setting::Brecq;
    let blocks = accuracy::blocks(&records);
    assert_eq!(blocks.len(), 2);
    assert_eq!(blocks[0].rows.iter().map(|row| row.title()).collect::<Vec<_>>(), ["RTN", "QDrop", "QDrop (no-drop)"]);
}

#[test]
fn samples_of_other_sizes_stand_in_their_order() {
    let of = |(arch, calib_images): (&str, usize)| {
        let mut record = records().remove(0);
        (record.cell.arch, record.cell.calib_images) = (arch.to_string(), calib_images);
        record
    };
    let blocks =
        accuracy::blocks(&[("resnet20", 128), ("mobilenetv2-tiny", 64), ("resnet20", 16), ("resnet20", 1024)].map(of));
    let order: Vec<(&str, usize)> = blocks.iter().map(|block| (block.arch.as_str(), block.calib_images)).collect();
    assert_eq!(order, [("resnet20", 16), ("resnet20", 128), ("resnet20", 1024), ("mobilenetv2-tiny", 64)]);
}

#[test]
fn configurations_are_never_averaged() {
    let mut records = records();
    // Seed 1 of QDrop at W2A2 drops less than the other seeds.
    records[3].cell.recipe.drop_input = 0.25;
    let blocks = accuracy::blocks(&records);
    let titles: Vec<String> = blocks[0].rows.iter().map(|row| row.title()).collect();
    assert_eq!(titles, ["RTN", "QDrop (drop-input 0.25)", "QDrop (drop-input 0.5)"]);
    let n = |row: usize| blocks[0].rows[row].entries[1].summary.as_ref().map(|summary| summary.n);
    assert_eq!((n(1), n(2)), (Some(1), Some(2)));
}

#[test]
fn csv_files_come_back_with_fractions() {
    let rendered = render(&records(), &SUBJECT).unwrap();
    let read = |bytes: &[u8]| CsvReader::new(Cursor::new(bytes.to_vec())).finish().unwrap();
    let runs = read(&rendered.runs_csv);
    let rows = parquet_file::tests::rows(&rendered.runs_parquet);
    let column = |wanted: &str| -> Vec<Field> {
        rows.iter().flatten().filter(|(name, _)| name == wanted).map(|(_, value)| value.clone()).collect()
    };
    let top1 = runs.column("test_top1").unwrap().f64().unwrap();
    let expected: Vec<Field> = top1.iter().map(|value| value.map_or(Field::Null, Field::Double)).collect();
    assert_eq!(column("test_top1"), expected);
    assert_eq!(column("seed"), [0, 0, 0, 1, 2, 0].map(Field::ULong));
    assert_eq!(runs.height(), 6);
    assert_eq!(runs.column("test_top1").unwrap().f64().unwrap().get(2), Some(0.80));
    assert_eq!(runs.column("test_top1").unwrap().null_count(), 1);
    let table = read(&rendered.accuracy_csv);
    assert_eq!((table.height(), table.column("n").unwrap().i64().unwrap().get(2)), (3, Some(3)));
    assert!((table.column("test_top1_std").unwrap().f64().unwrap().get(2).unwrap() - 0.02).abs() < 1e-12);
}

#[test]
fn figures_name_every_method_and_width() {
    let rendered = render(&records(), &SUBJECT).unwrap();
    for part in ["ResNet-20", "RTN", "QDrop", "W4A4", "W2A2", "full precision", "test top-1"] {
        assert!(rendered.svg.contains(part), "{part}");
    }
    assert!(rendered.png.starts_with(b"\x89PNG") && rendered.png.len() > 5_000);
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let [a, b] = [(); 2].map(|()| render(&records(), &SUBJECT).unwrap());
    assert_eq!((a.markdown, a.accuracy_csv, a.runs_csv), (b.markdown, b.accuracy_csv, b.runs_csv));
    assert_eq!((a.svg, a.png, a.terminal), (b.svg, b.png, b.terminal));
}

#[test]
fn nothing_finished_is_a_table_of_dashes_and_nothing_stored_an_empty_one() {
    let failed = [Record::sample("a", "qdrop", "W2A2", 0).failed("why")];
    let rendered = render(&failed, &SUBJECT).unwrap();
    assert!(rendered.markdown.contains("| QDrop | – [1] |"), "{}", rendered.markdown);
    assert!(rendered.svg.contains("no finished runs"));
    assert!(render(&[], &SUBJECT).unwrap().svg.contains("no finished runs"));
}

/// QDrop and Genie-M at two widths of an ImageNet network that starts from the published checkpoint.
fn imagenet() -> Vec<Record> {
    let record = |method: &str, bits: &str, top1: f64| {
        let mut record = Record::sample(&format!("{method}-{bits}"), method, bits, 0).with_top1(top1, 0.8);
        (record.cell.arch, record.cell.dataset, record.cell.calib_images) =
            ("resnet18".into(), "imagenet".into(), 1024);
        let metrics = record.metrics.as_mut().unwrap();
        (metrics.fp_test_top1, metrics.test_images) = (0.7101, 50_000);
        record
    };
    vec![
        record("qdrop", "W4A4", 0.6900),
        record("qdrop", "W2A2", 0.5200),
        record("genie-m", "W2A2", 0.5400),
        record("brecq", "W4A4", 0.6800),
        record("rtn", "W2A2", 0.01),
    ]
}

#[test]
fn published_numbers_stand_beside_ours_by_kind() {
    let rendered = render(&imagenet(), &SUBJECT).unwrap();
    for part in [
        "| Published, official | W4A4 | W2A2 |",
        "| QDrop [2] | 69.10 (-0.10) | 51.14 (+0.86) |",
        "| PD-Quant [5] | 69.30 | 53.08 |",
        // Another setting than ours, and never run here.
        "| MRECG + BRECQ, setting brecq [6] | 69.06 | 52.02 |",
        "| Published, re-run | W4A4 | W2A2 |",
        // Published at one of the widths alone.
        "| BRECQ [7] | 68.52 (-0.52) |  |",
        "| Published, secondary | W4A4 | W2A2 |",
        "| Genie-M [8] | 69.35 | 53.71 (+0.29) |",
        "[2] QDrop repository README, first version (2022-02-10): the paper's values",
        "71.06 (QDrop repository README)",
        "up to 0.6 points are within the sampling noise",
    ] {
        assert!(rendered.markdown.contains(part), "{part:?} is missing in:\n{}", rendered.markdown);
    }
    let csv = CsvReader::new(Cursor::new(rendered.published_csv.unwrap())).finish().unwrap();
    let differences = csv.column("difference").unwrap().f64().unwrap();
    assert!((differences.get(0).unwrap() + 0.001).abs() < 1e-12, "{csv}");
}

#[test]
fn compare_prints_published_numbers_by_kind_and_what_has_none() {
    let published = Published::embedded().unwrap();
    let columns =
        |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    let [block] = &accuracy::blocks(&imagenet())[..] else { panic!("several blocks") };
    let lines = columns(&beside_text::text(block, &published, None));
    for line in [
        "resnet18, setting qdrop, 1024 calibration images",
        "full precision: ours 71.01",
        "71.06 (QDrop repository README)",
        "published, official",
        "W4A4 QDrop qdrop 69.00 1 69.13 -0.13 QDrop repository README, current (branch qdrop)",
        "W4A4 PD-Quant qdrop 69.30 PD-Quant repository README",
        "published, re-run",
        "published, secondary",
        "W2A2 Genie-M qdrop 54.00 1 53.71 +0.29 MetaAug paper (2407.14726), main table, read from a third-party summary",
        "not published",
        "W2A2 RTN qdrop 1.00 1",
        "W2A2 Genie-M published 26.41, ours 26.00 (MetaAug paper, over-fitting table)",
        "W2A2 MetaAug published 23.42 (MetaAug paper, over-fitting table)",
    ] {
        assert!(lines.iter().any(|known| known == line), "{line:?} is missing in:\n{}", lines.join("\n"));
    }
    let mut records = imagenet();
    records.iter_mut().for_each(|record| record.cell.setting = ptq::recipe::Setting::Brecq);
    let lines = columns(&beside_text::text(&accuracy::blocks(&records)[0], &published, None));
    assert!(
        lines.contains(&"† not compared: 8-bit setting qdrop there, brecq here".to_string()),
        "{}",
        lines.join("\n")
    );
    assert!(lines.iter().any(|line| line.starts_with("W2A2 QDrop qdrop 52.00 1 51.14 † QDrop")));
    records.iter_mut().for_each(|record| record.cell.dataset = "fashion-mnist".into());
    assert!(beside_text::text(&accuracy::blocks(&records)[0], &published, None).is_empty());
}

#[test]
fn what_does_not_match_has_a_dagger_and_a_reason() {
    let changed = |change: fn(&mut Record)| {
        let mut records = imagenet();
        records.iter_mut().for_each(change);
        render(&records, &SUBJECT).unwrap().markdown
    };
    let other_weights = changed(|record| record.metrics.as_mut().unwrap().fp_test_top1 = 0.6976);
    let other_setting = changed(|record| record.cell.setting = ptq::recipe::Setting::Brecq);
    let fewer_images = changed(|record| record.metrics.as_mut().unwrap().test_images = 5000);
    let smaller_sample = changed(|record| record.cell.calib_images = 32);
    for (text, reason) in [
        (&other_weights, "another checkpoint: full precision 69.76 here, 71.01 to 71.06 there"),
        (&other_setting, "8-bit setting qdrop there, brecq here"),
        (&fewer_images, "measured on 5000 test images, there on 50000"),
        (&smaller_sample, "32 calibration images, there 1024"),
    ] {
        assert!(text.contains(&format!("not compared with ours: {reason}")), "{reason}: {text}");
        assert!(text.contains("51.14 † [") && !text.contains("51.14 ("), "{text}");
    }
    assert!(!other_weights.contains("sampling noise"), "{other_weights}");
}

#[test]
fn nothing_published_changes_nothing() {
    for (arch, dataset) in [("resnet20", "fashion-mnist"), ("resnet18", "cifar-10"), ("resnet20", "imagenet")] {
        let mut records = imagenet();
        records.iter_mut().for_each(|record| (record.cell.arch, record.cell.dataset) = (arch.into(), dataset.into()));
        let rendered = render(&records, &SUBJECT).unwrap();
        assert!(rendered.markdown.contains("| RTN | – [1] | 1.00 |"), "{}", rendered.markdown);
        assert!(rendered.markdown.contains("[1] no run is stored"), "{}", rendered.markdown);
        assert!(!rendered.markdown.contains("Published") && rendered.published_csv.is_none(), "{}", rendered.markdown);
    }
}

#[test]
fn numbers_of_one_data_set_stand_beside_runs_on_it_alone() {
    let published = Published::parse(
        "p.toml",
        "[[full_precision]]\ndataset = \"cifar-10\"\nsource = \"its card\"\nresnet20 = 83.24\n\
         [[result]]\ndataset = \"cifar-10\"\nmethod = \"qdrop\"\nsetting = \"qdrop\"\nbits = \"w2a2\"\nkind = \"rerun\"\n\
         source = \"its code, on our images\"\nresnet20 = 51.0\n",
    );
    let published = published.unwrap();
    let on = |arch: &str, dataset: &str, fp: f64| {
        let mut records = imagenet();
        for record in &mut records {
            (record.cell.arch, record.cell.dataset) = (arch.into(), dataset.into());
            let metrics = record.metrics.as_mut().unwrap();
            (metrics.fp_test_top1, metrics.test_images) = (fp, 10_000);
        }
        beside::beside(&accuracy::blocks(&records)[0], &published)
    };
    let lines = on("resnet20", "cifar-10", 0.8324);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((line.kind, line.published, line.ours), (Some(Kind::Rerun), Some(0.51), Some(0.52)));
    assert!((line.difference.unwrap() - 0.01).abs() < 1e-12, "{line:?}");
    // Around 50 % the 95 % interval of a difference of two accuracies on 10,000 images is 1.39 points.
    let note = beside::noise_note(&lines).unwrap();
    assert!(note.contains("on 10000 images, up to 1.4 points"), "{note}");
    let other = on("resnet20", "cifar-10", 0.81);
    let reason = "another checkpoint: full precision 81.00 here, 83.24 to 83.24 there";
    assert_eq!(other[0].reason.as_deref(), Some(reason));
    for (arch, dataset) in [("resnet20", "fashion-mnist"), ("resnet18", "imagenet"), ("resnet32", "cifar-10")] {
        assert!(on(arch, dataset, 0.8324).is_empty(), "{arch} on {dataset}");
    }
}

#[test]
fn departures_and_the_noise_of_unpaired_accuracies_are_said() {
    let text = render(&imagenet(), &SUBJECT).unwrap().markdown;
    // Around 50 % the 95 % interval of a difference of two accuracies on 50,000 images is 0.62 points.
    assert!(text.contains("On 50000 test images, two accuracies that are compared without pairing"), "{text}");
    assert!(text.contains("differ by up to 0.6 points by chance (95 %)"), "{text}");
    // Its published code spares another layer.
    assert!(text.contains("Not the published recipe: BRECQ: setting."), "{text}");
    let mut records = records();
    records.iter_mut().for_each(|record| record.cell.calib_images = 1024);
    assert!(!render(&records, &SUBJECT).unwrap().markdown.contains("Not the published recipe"));
    records[2..].iter_mut().for_each(|record| record.cell.recipe.iterations = 10);
    let text = render(&records, &SUBJECT).unwrap().markdown;
    assert!(text.contains("Not the published recipe: QDrop: iterations."), "{text}");
}

/// The table `columns = "bits"` of `metric` over `records`, with all kinds of published numbers.
fn with_published(records: Vec<Record>, metric: Metric) -> String {
    let spec = TableSpec {
        name: "main".into(),
        caption: String::new(),
        rows: vec!["method".into()],
        columns: "bits".into(),
        metric,
        filter: None,
        significance: false,
        published: vec![Kind::Official, Kind::Secondary],
        published_table: None,
    };
    let (mut plan, mut stored) = (Vec::new(), Vec::new());
    for mut record in records {
        let id = RunId::new(&record.cell, &record.hashes, &record.made_with());
        record.run_id = id.to_string();
        let (cell, hashes, revisions) = (record.cell.clone(), Some(record.hashes.clone()), record.made_with());
        plan.push(Planned { id, cell, hashes, revisions, state: State::Done });
        stored.push(Stored::read("test", "nowhere".into(), record));
    }
    render_declared(&[spec], &plan, &stored, &SUBJECT).unwrap().remove(0).markdown
}

#[test]
fn declared_tables_have_published_rows_with_differences_where_they_may() {
    let text = with_published(imagenet(), Metric::TEST);
    for part in [
        "| Published, official | W4A4 | W2A2 |",
        "| ResNet-18, QDrop, setting qdrop [1] | 69.10 (-0.10) | 51.14 (+0.86) |",
        "| ResNet-18, Genie-M, setting qdrop [6] | 69.35 | 53.71 (+0.29) |",
        "[1] QDrop repository README, first version (2022-02-10): the paper's values",
        "up to 0.6 points are within the sampling noise",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert!(!text.contains("re-run"), "not asked for:\n{text}");
    let mut fewer = imagenet();
    fewer.iter_mut().for_each(|record| record.metrics.as_mut().unwrap().test_images = 5000);
    let text = with_published(fewer, Metric::TEST);
    assert!(text.contains("51.14 † [") && !text.contains("51.14 ("), "{text}");
    assert!(text.contains("not compared with ours: measured on 5000 test images"), "{text}");
    let gaps = with_published(imagenet(), Metric::GAP);
    assert!(gaps.contains("| Published gap | W4A4 | W2A2 |\n|---|---:|---:|\n| ResNet-18, QDrop ["), "{gaps}");
    assert!(gaps.contains("|  | 26.39 |"), "{gaps}");
}

#[test]
fn latex_has_the_same_numbers_and_escapes_what_runs_say() {
    let mut records = records();
    records[1] = records[1].clone().failed("100 % of x_i & \\y");
    let text = render(&records, &SUBJECT).unwrap().latex;
    for part in [
        "\\usepackage{booktabs}",
        "\\begin{tabular}{lrr}",
        "Test & W4A4 & W2A2 \\\\",
        "RTN & \\textbf{90.00} (1) & --\\textsuperscript{1} \\\\",
        "QDrop & 89.50 (1) & \\textbf{82.00 $\\pm$ 2.00} \\\\",
        "\\textsuperscript{1}~rtn-w2 failed: 100 \\% of x\\_i \\& \\textbackslash{}y",
        "\\label{tab:x-accuracy-1}",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}
