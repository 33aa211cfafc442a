//! Images from the Hub: grids whose data lie in a repository of it.

use super::server::{COMMIT, DATASET, Request, TOKEN, TestHub};
use super::{files, harness};
use crate::cli::{Bench, Ended, assert_contains};
use metaaug::disk::sha256;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::path::Path;
use std::sync::{Arc, OnceLock};

const GRID: &str = r#"
name = "tiny"
[base]
arch = "resnet20"
weights = "file:WEIGHTS"
dataset = "fashion-mnist"
data = "hub:someone/pictures"
bits = "W8A8"
calib-images = 32
recipe = { iterations = 2, batch = 8 }
[axes]
method = ["rtn", "qdrop"]
"#;
/// Training shards, and images in each: three of them hold the 16,384 that a sample is drawn from.
const SHARDS: usize = 6;
const ROWS: usize = 6000;

fn grid() -> String {
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/resnet20-fashion-mnist/model.safetensors");
    GRID.replace("WEIGHTS", weights)
}

fn png_of(number: usize) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 28, 28);
    encoder.set_color(png::ColorType::Grayscale);
    let levels: Vec<u8> = (0..28 * 28).map(|i| (i * (2 * number + 7) / 5) as u8).collect();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&levels).unwrap();
    writer.finish().unwrap();
    file
}

/// A shard of `labels`, whose images are those of `first` and the next numbers, as far as there are any.
fn shard(first: usize, labels: &[i64]) -> Vec<u8> {
    let images: Vec<ByteArray> = (0..64).map(|number| ByteArray::from(png_of(first + number))).collect();
    let images: Vec<ByteArray> = images.iter().cycle().take(labels.len()).cloned().collect();
    let schema = "message s { optional group image { optional binary bytes; } optional int64 label; }";
    let mut file = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut file, Arc::new(parse_message_type(schema).unwrap()), Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    while let Some(mut column) = group.next_column().unwrap() {
        match column.untyped() {
            ColumnWriter::ByteArrayColumnWriter(column) => {
                column.write_batch(&images, Some(&vec![2; labels.len()]), None).unwrap();
            }
            ColumnWriter::Int64ColumnWriter(column) => {
                column.write_batch(labels, Some(&vec![1; labels.len()]), None).unwrap();
            }
            _ => panic!("a column of another type"),
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    file
}

fn labels(rows: usize) -> Vec<i64> {
    (0..rows).map(|row| (row % 10) as i64).collect()
}

/// Six training shards and two test shards in `folder`, beside what is in every repository.
fn pictures(folder: &str) -> Vec<(String, Vec<u8>)> {
    static TRAIN: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let train = TRAIN.get_or_init(|| (0..SHARDS).map(|index| shard(100 * index, &labels(ROWS))).collect());
    let train = train.iter().enumerate().map(|(index, shard)| (format!("train-{index:05}-of-00006"), shard.clone()));
    let test = (0..2).map(|index| (format!("test-{index:05}-of-00002"), shard(7 * index, &labels(50))));
    let shards = train.chain(test).map(|(name, content)| (format!("{folder}/{name}.parquet"), content));
    shards.chain([("README.md".to_string(), b"# Pictures".to_vec())]).collect()
}

fn test_hub() -> TestHub {
    let server = TestHub::start(&[], &[]);
    server.hold(pictures("data"));
    server
}

/// The shards of which all that is missing was sent, by name; without the ends that were asked for alone.
fn sent(requests: &[Request]) -> Vec<String> {
    let is_whole =
        |request: &&Request| request.to_content && request.method == "GET" && !request.headers.contains_key("range");
    let name = |request: &Request| {
        let path = request.path.split('?').next().unwrap();
        path.rsplit('/').next().unwrap().trim_end_matches(".parquet").to_string()
    };
    let mut names: Vec<String> = requests.iter().filter(is_whole).map(name).collect();
    names.sort();
    names
}

fn asked_for_commits(requests: &[Request]) -> usize {
    requests.iter().filter(|request| request.path.contains("/revision/")).count()
}

const NEEDED: [&str; 5] = [
    "test-00000-of-00002",
    "test-00001-of-00002",
    "train-00000-of-00006",
    "train-00001-of-00006",
    "train-00003-of-00006",
];

fn records(bench: &Bench) -> Vec<String> {
    let records = files(&bench.path().join("results")).into_iter().filter(|path| path.ends_with("record.json"));
    records.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn a_grid_with_data_on_the_hub_says_what_it_needs_fetches_that_alone_and_runs_offline() {
    let (bench, server) = (Bench::new(&grid()), test_hub());
    let plan = harness(&bench, &server, &["plan", "grid.toml"], &[]);
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    let set = format!("hub:someone/pictures@{COMMIT}");
    let shown = "5 files to download, ";
    assert_contains(
        &plan.stdout,
        &["pending  resnet20-w8a8-rtn-s0\n", &format!("{set}: {shown}"), "(2 of 2 shards of the test split, 3 of 6 of"],
    );
    let dry = harness(&bench, &server, &["run", "grid.toml", "--dry-run"], &[]);
    assert_contains(&dry.stdout, &["2 of 2 cells would run", shown]);
    assert_eq!(sent(&server.requests()), [""; 0]);

    let fetched = harness(&bench, &server, &["fetch", "grid.toml"], &[]);
    assert_eq!(fetched.code, 0, "{}", fetched.stderr);
    let requests = server.requests();
    assert_eq!((sent(&requests), asked_for_commits(&requests)), (NEEDED.map(str::to_string).to_vec(), 1));
    assert!(!requests.iter().any(|request| request.path.contains("/tree/")), "listed before");
    let test = pictures("data").into_iter().find(|(path, _)| path.ends_with("test-00001-of-00002.parquet")).unwrap();
    assert_contains(
        &fetched.stdout,
        &[
            &format!("{}  hub:datasets/someone/pictures@{COMMIT}/{}", sha256(&[&test.1]), test.0),
            "5 files of the Hub in",
            &format!("calibration images of {set} are drawn from 3 of its 6 training shards"),
        ],
    );
    assert_contains(&fetched.stderr, &[shown, "downloaded hub:datasets/someone/pictures@"]);

    // What is there is not sent again, and nothing is asked for where that is forbidden.
    let again = harness(&bench, &server, &["fetch", "grid.toml"], &[]);
    assert_eq!((again.code, again.stdout), (0, fetched.stdout));
    assert_eq!(server.requests().len(), 1);
    let offline = [("HF_HUB_OFFLINE", "1")];
    let plan = harness(&bench, &server, &["plan", "grid.toml"], &offline);
    assert!(!plan.stdout.contains("to download") && plan.stdout.contains("MiB"), "{}", plan.stdout);
    let done = harness(&bench, &server, &["run", "grid.toml"], &offline);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(server.requests().is_empty());
    let records = records(&bench);
    assert_eq!(records.len(), 2);
    for record in records {
        assert_contains(&record, &[&format!(r#""data_source": "{set}""#), r#""data": "hub:someone/pictures@main""#]);
    }

    // The same shards in a folder are the same images, and make the same runs.
    let folder = bench.path().join("copy");
    std::fs::create_dir(&folder).unwrap();
    let shards = pictures("data").into_iter().filter(|(path, _)| NEEDED.iter().any(|needed| path.contains(needed)));
    for (path, content) in shards {
        std::fs::write(folder.join(Path::new(&path).file_name().unwrap()), content).unwrap();
    }
    std::fs::write(bench.path().join("grid.toml"), grid().replace("hub:someone/pictures", "parquet:copy")).unwrap();
    assert_contains(&harness(&bench, &server, &["plan", "grid.toml"], &offline).stdout, &["2 cells, 2 done"]);
}

#[test]
fn the_cells_of_a_run_see_one_commit_even_in_processes_of_their_own() {
    let (bench, server) = (Bench::new(&grid()), test_hub());
    // The ends of three shards, then the first shard, which breaks.
    server.behaviour().cuts = [1 << 30, 1 << 30, 1 << 30, 1000].into();
    let run = harness(&bench, &server, &["run", "grid.toml", "--isolate"], &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let requests = server.requests();
    assert_eq!((sent(&requests), asked_for_commits(&requests)), (NEEDED.map(str::to_string).to_vec(), 1));
    let is_continued = |request: &Request| request.headers.get("range").is_some_and(|range| range == "bytes=1000-");
    assert!(requests.iter().any(is_continued), "the broken download goes on");
    let source = format!(r#""data_source": "hub:someone/pictures@{COMMIT}""#);
    assert!(records(&bench).iter().all(|record| record.contains(&source)));
}

/// `harness fetch` of a grid with these data.
fn fetch(server: &TestHub, data: &str, variables: &[(&str, &str)]) -> Ended {
    let bench = Bench::new(&grid().replace("hub:someone/pictures", data));
    harness(&bench, server, &["fetch", "grid.toml"], variables)
}

#[test]
fn what_is_not_on_the_hub_is_one_error_that_says_what_is() {
    let server = test_hub();
    let refused = |data: &str, parts: &[&str]| {
        let run = fetch(&server, data, &[]);
        assert_eq!((run.code, run.stderr.matches("error:").count()), (96, 1), "{}", run.stderr);
        assert_contains(&run.stderr, parts);
    };
    refused(
        "hub:nobody/pictures",
        &["hub:datasets/nobody/pictures@main: not found: there is no", "datasets/nobody/pictures"],
    );
    refused("hub:someone/pictures@v9", &["no branch, tag or commit v9"]);
    refused("hub:someone/pictures/large", &["no configuration large", "leave its name out"]);

    server.hold([pictures("small"), pictures("large")].concat());
    refused(
        "hub:someone/pictures",
        &["2 configurations: large, small", &format!("hub:someone/pictures@{COMMIT}/large")],
    );
    refused("hub:someone/pictures/tiny", &["no configuration tiny, but large, small"]);

    let without =
        |part: &str| pictures("data").into_iter().filter(|(path, _)| !path.contains(part)).collect::<Vec<_>>();
    for (files, parts) in [
        (
            without("test"),
            ["it has no validation-*.parquet or val-*.parquet or test-*.parquet", "data/train-00000-of-00006"],
        ),
        (without("train"), ["it has no train-*.parquet", "data/test-00000-of-00002.parquet"]),
        (without("test-00001"), ["test-00000-of-00002.parquet", "1 of 2 shards are there"]),
        (without("train-00002"), ["5 of 6 shards are there", "2 is missing"]),
        (without(".parquet"), ["nor any other Parquet file (but 1 md)", "refs%2Fconvert%2Fparquet"]),
    ] {
        server.hold(files);
        refused_anew(&server, &parts);
    }
    let sorted = |index: usize| (format!("train-{index:05}-of-00006.parquet"), shard(0, &[index as i64; ROWS]));
    let mut files = without("train");
    files.retain(|(path, _)| path.contains("test"));
    let files = files.into_iter().map(|(path, content)| (path.replace("data/", ""), content));
    server.hold(files.chain((0..SHARDS).map(sorted)));
    let bench = Bench::new(&grid());
    let run = harness(&bench, &server, &["run", "grid.toml"], &[]);
    assert_contains(&run.stderr, &["3 of 6 shards", "have 3 of 10 classes", "sorted by class", "parquet:PATH"]);
}

/// With a cache of its own, since commits do not change.
#[track_caller]
fn refused_anew(server: &TestHub, parts: &[&str]) {
    let run = fetch(server, "hub:someone/pictures", &[]);
    assert_eq!(run.code, 96, "{}", run.stdout);
    assert_contains(&run.stderr, parts);
}

#[test]
fn a_configuration_may_be_named_and_the_only_one_need_not() {
    let server = TestHub::start(&[], &[]);
    server.hold(pictures("plain_text"));
    for data in ["hub:someone/pictures", "hub:datasets/someone/pictures@main/plain_text"] {
        let run = fetch(&server, data, &[]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_contains(&run.stdout, &["/plain_text/train-00003-of-00006.parquet"]);
    }
    server.hold([pictures("small"), pictures("large")].concat());
    let run = fetch(&server, "hub:someone/pictures/small", &[]);
    assert!(run.code == 0 && !run.stdout.contains("large"), "{}{}", run.stdout, run.stderr);
}

#[test]
fn a_gated_set_says_once_what_to_do() {
    let server = test_hub();
    server.behaviour().gated = true;
    let bench = Bench::new(&grid());
    let run = harness(&bench, &server, &["run", "grid.toml"], &[]);
    assert_eq!((run.code, run.stderr.matches("gated").count()), (96, 1), "{}", run.stderr);
    let page = format!("{}/datasets/{DATASET}", server.endpoint());
    assert_contains(&run.stderr, &["accept the licence at", &page, "HF_TOKEN"]);
    let run = harness(&bench, &server, &["fetch", "grid.toml"], &[("HF_TOKEN", TOKEN)]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn without_a_network_what_is_missing_is_named_with_the_way_out() {
    let server = test_hub();
    let run = fetch(&server, "hub:someone/pictures", &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(run.code, 96);
    assert_contains(
        &run.stderr,
        &["hub:datasets/someone/pictures@main", "HF_HUB_OFFLINE is set", "`harness fetch FILE`"],
    );
}

#[test]
fn a_name_that_is_none_is_shown_in_the_grid() {
    let bench = Bench::new(&grid().replace("hub:someone/pictures", "hub:nobody"));
    let run = bench.harness(&["plan", "grid.toml"]);
    assert_eq!(run.code, 2);
    assert_contains(&run.stderr, &["grid.toml:7:8", "hub:OWNER/NAME[@REVISION][/CONFIG]"]);
}
