//! Files that are damaged or made to harm: whatever is changed in a file of any format that is read, it is read or refused, in
//! little memory, and the process goes on.

use crate::allocations::most_bytes;
use crate::cli::assert_contains;
use crate::stored::{Results, first};
use candle_core::Device;
use metaaug::assets::checkpoint::load_weights;
use metaaug::data::{self, Request, decode::decode};
use metaaug::experiment::{Experiment, Filter, Options};
use metaaug::hub::Hub;
use metaaug::store::record::Status;
use metaaug::store::{Annotations, Predictions, Run, Store};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }

    /// `file` with one to four places changed: bytes set to what numbers end in, removed, repeated, or cut off.
    fn altered(&mut self, file: &[u8]) -> Vec<u8> {
        const BYTES: [u8; 6] = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
        let mut bytes = file.to_vec();
        for _ in 0..=self.below(4) {
            let (at, byte) = (self.below(bytes.len()), BYTES[self.below(BYTES.len())]);
            let end = (at + 1 + self.below(8)).min(bytes.len());
            match self.below(8) {
                _ if bytes.is_empty() => break,
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..end)),
                2 => drop(bytes.splice(at..at, vec![byte; 1 + self.below(64)])),
                3 => bytes[at..end].fill(byte),
                4 => bytes[at] ^= 1 << self.below(8),
                5 => drop(bytes.splice(at..at, bytes[at..end].repeat(1 + self.below(4)))),
                _ => bytes[at] = byte,
            }
        }
        bytes
    }
}

const MIB: usize = 1 << 20;

/// Lets `read` have `file` and `count` alterations of it, none of which may take more than `most` bytes.
fn alter(name: &str, file: &[u8], count: usize, most: usize, mut read: impl FnMut(&[u8]) + Send) {
    let mut numbers = Numbers(count as u64);
    for index in 0..count {
        let altered = numbers.altered(file);
        let ((), taken) = most_bytes(|| read(&altered));
        assert!(taken <= most, "{name}, alteration {index}: {taken} bytes");
    }
}

fn golden(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(path)
}

#[test]
fn altered_images_are_read_or_refused() {
    let tensors = candle_core::safetensors::load(golden("images.safetensors"), &Device::Cpu).unwrap();
    let mut files: Vec<(&String, Vec<u8>)> = tensors
        .iter()
        .filter(|(name, _)| name.starts_with("file/"))
        .map(|(name, file)| (name, file.to_vec1::<u8>().unwrap()))
        .collect();
    files.sort();
    // Every kind, a tenth of the JPEG files.
    let chosen = files.iter().enumerate().filter(|(index, (name, _))| !name.contains("jpeg/") || index % 10 == 0);
    for (_, (name, file)) in chosen {
        alter(name, file, 20, 600 * MIB, |bytes| drop(decode(bytes, 3)));
    }
}

/// Its shorter side becomes 20 pixels, its longer one a thousand million, of which sixteen are wanted.
#[test]
fn an_image_of_one_column_takes_no_more_memory_than_its_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 1, 50_000_000);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&vec![7; 50_000_000]).unwrap();
    for split in ["train", "val"] {
        std::fs::create_dir_all(folder.path().join(split).join("a")).unwrap();
        std::fs::write(folder.path().join(split).join("a/0.png"), &file).unwrap();
    }
    let config = "{\"input_size\": [3, 16, 16], \"crop_pct\": 0.8, \"interpolation\": \"bilinear\"}";
    let data = format!("folder:{}", folder.path().display());
    let request = Request { data: Some(&data), config: Some(config), ..Request::default() };
    let data = data::find("image-folder").unwrap().load(&request, &Device::Cpu).unwrap();
    let (split, taken) = most_bytes(|| data.test.first(1).unwrap());
    assert_eq!(split.images.dims(), [1, 3, 16, 16]);
    assert!(taken <= 400 * MIB, "{taken} bytes");
}

#[test]
fn altered_weights_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pth");
    let arch = ptq::arch::find("resnet20").unwrap();
    let spec = format!("file:{}", path.display());
    let mut tensors = std::collections::HashMap::new();
    tensors.insert("fc.weight", candle_core::Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap());
    let small = folder.path().join("small.safetensors");
    candle_core::safetensors::save(&tensors, &small).unwrap();
    let pickled = ["plain.pth", "legacy.pth", "protocol5.pth", "training.pth", "two.pth", "shared.pth"];
    for file in pickled.iter().map(|name| golden("pth").join(name)).chain([small]) {
        alter(&file.display().to_string(), &std::fs::read(&file).unwrap(), 100, 16 * MIB, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            drop(load_weights(&spec, arch, "fashion-mnist", &Device::Cpu, &Hub::silent()));
        });
    }
}

/// Loads the data set and looks at all of its images.
fn load_all(dataset: &str, data: &str) {
    let config = "{\"input_size\": [3, 4, 4], \"crop_pct\": 1.0, \"interpolation\": \"bilinear\"}";
    let config = (dataset != "mnist").then_some(config);
    let request = Request { data: Some(data), config, ..Request::default() };
    if let Ok(data) = data::find(dataset).unwrap().load(&request, &Device::Cpu) {
        drop(data.test.first(data.test.len()));
        drop(data.calibration(data.pool.len(), 1));
    }
}

#[test]
fn altered_shards_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("parquet:{}", folder.path().display());
    let names = std::fs::read_dir(golden("parquet")).unwrap().map(|entry| entry.unwrap().path());
    let shards: Vec<PathBuf> = names.filter(|path| path.is_file()).collect();
    for shard in &shards {
        std::fs::copy(shard, folder.path().join(shard.file_name().unwrap())).unwrap();
    }
    for shard in &shards {
        let (file, path) = (std::fs::read(shard).unwrap(), folder.path().join(shard.file_name().unwrap()));
        alter(&shard.display().to_string(), &file, 60, 200 * MIB, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            load_all("cifar-100", &data);
        });
        std::fs::write(&path, &file).unwrap();
    }
}

#[test]
fn altered_idx_files_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let idx = |dims: &[u32]| {
        let header = [0, 0, 8, dims.len() as u8].into_iter().chain(dims.iter().flat_map(|dim| dim.to_be_bytes()));
        header.chain((0..dims.iter().product()).map(|i: u32| (i % 10) as u8)).collect::<Vec<u8>>()
    };
    for (split, n) in [("train", 3), ("t10k", 2)] {
        std::fs::write(folder.path().join(format!("{split}-images-idx3-ubyte")), idx(&[n, 28, 28])).unwrap();
        let labels = std::fs::File::create(folder.path().join(format!("{split}-labels-idx1-ubyte.gz"))).unwrap();
        let mut zipped = flate2::write::GzEncoder::new(labels, flate2::Compression::best());
        zipped.write_all(&idx(&[n])).unwrap();
        zipped.finish().unwrap();
    }
    let data = format!("idx:{}", folder.path().display());
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let file = std::fs::read(&path).unwrap();
        alter(&path.display().to_string(), &file, 100, 16 * MIB, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            load_all("mnist", &data);
        });
        std::fs::write(&path, &file).unwrap();
    }
}

#[test]
fn altered_grids_filters_and_configurations_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grid.toml");
    let grid = "name = \"x\"\n[base]\narch = \"resnet20\"\nrecipe = { iterations = 10 }\n[axes]\nbits = [\"W2A2\", \"W4A4\"]\n\
                method = [\"rtn\", \"qdrop\"]\nseed = [0, 1]\n[[table]]\nname = \"main\"\nrows = [\"method\"]\ncolumns = \"bits\"\n\
                filter = \"method(qdrop | rtn) & seed(>=0)\"\n[[exclude]]\nmethod = \"rtn\"\nseed = 1\n";
    alter("grid", grid.as_bytes(), 400, 16 * MIB, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        drop(Experiment::read(&path, &Options::default()));
    });
    let filter = "not (arch(resnet*) & run(/-s[0-4]-/)) | test(<80%) and started(>=2026-11-20) or tag(\"a (b)\")";
    alter("filter", filter.as_bytes(), 400, 32 * MIB, |bytes| drop(Filter::parse(&String::from_utf8_lossy(bytes))));
    let config = "{\"pretrained_cfg\": {\"input_size\": [3, 64, 64], \"crop_pct\": 0.9, \"mean\": [0.5, 0.5, 0.5]}}";
    alter("config.json", config.as_bytes(), 200, 16 * MIB, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        drop(data::preprocess::Preprocess::from_timm_config(&text, data::CardSize::Test));
    });
}

#[test]
fn altered_runs_are_read_or_refused() {
    let results = Results::new();
    let id = results.add(&results.cell("qdrop", "W2A2", 0), &first(80, 100));
    let store = Store::new(&results.path(), "made");
    let folder = store.run_folder(&id);
    assert_eq!(results.harness(&["note", &id, "look at this"]).code, 0);
    for name in ["record.json", "trace.json", "predictions.safetensors", "notes.jsonl"] {
        let (path, file) = (folder.join(name), std::fs::read(folder.join(name)).unwrap());
        alter(name, &file, 200, 16 * MIB, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            drop((store.scan().unwrap(), Run::read(&folder), Predictions::read(&folder), Annotations::read(&folder)));
        });
        std::fs::write(&path, &file).unwrap();
    }
}

/// What is nested as deep as a file of a megabyte allows, in every language in which something can be.
#[test]
fn what_is_nested_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let deep = |open: &str| open.repeat(MIB / open.len());
    let path = folder.path().join("grid.toml");
    for text in
        [format!("a = {}", deep("[")), format!("a = {}", deep("{a=")), format!("[{}]", deep("a.")), deep("[[a]]\n")]
    {
        std::fs::write(&path, text).unwrap();
        assert!(Experiment::read(&path, &Options::default()).is_err());
    }
    for text in [deep("("), deep("!"), deep("not "), format!("run(/{}/)", deep("("))] {
        assert!(Filter::parse(&text).is_err());
    }
    let results = Results::new();
    let id = results.add(&results.cell("qdrop", "W2A2", 0), &first(80, 100));
    let store = Store::new(&results.path(), "made");
    for text in [deep("["), deep("{\"format\":")] {
        std::fs::write(store.run_folder(&id).join("record.json"), text).unwrap();
        let scan = store.scan().unwrap();
        assert_eq!((scan.records.len(), scan.broken.len()), (0, 1));
        assert!(scan.broken[0].1.contains("record.json"), "{:?}", scan.broken);
    }
    assert!(data::preprocess::Preprocess::from_timm_config(&deep("["), data::CardSize::Test).is_err());
}

#[cfg(unix)]
#[test]
fn nobody_waits_for_a_pipe_that_stands_for_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    };
    let load = |dataset: &str, data: String| {
        let request = Request { data: Some(&data), ..Request::default() };
        data::find(dataset).unwrap().load(&request, &Device::Cpu).unwrap_err().to_string()
    };
    make("folder/val/a/x.jpg");
    let error = load("image-folder", format!("folder:{}", folder.path().join("folder").display()));
    assert!(error.contains("val/a/x.jpg"), "{error}");
    make("shards/validation-0.parquet");
    let error = load("cifar-10", format!("parquet:{}", folder.path().join("shards").display()));
    assert!(error.contains("validation-0.parquet: a pipe, socket or device"), "{error}");
    make("cifar/data_batch_1.bin");
    let error = load("cifar-10", format!("binary:{}", folder.path().join("cifar").display()));
    assert!(error.contains("data_batch_1.bin: a pipe, socket or device"), "{error}");
    make("idx/train-images-idx3-ubyte");
    let error = load("mnist", format!("idx:{}", folder.path().join("idx").display()));
    assert!(error.contains("train-images-idx3-ubyte: a pipe, socket or device"), "{error}");
    let weights = format!("file:{}", make("x.pth").display());
    let arch = ptq::arch::find("resnet20").unwrap();
    let error = load_weights(&weights, arch, "fashion-mnist", &Device::Cpu, &Hub::silent()).unwrap_err().to_string();
    assert!(error.contains("x.pth: a pipe, socket or device"), "{error}");
    let store = Store::new(folder.path(), "x");
    make("x/runs/run-1/record.json");
    let scan = store.scan().unwrap();
    assert!(scan.broken[0].1.contains("record.json: a pipe, socket or device"), "{:?}", scan.broken);
}

#[test]
fn an_altered_record_is_named_and_stands_in_no_table() {
    let results = Results::new();
    let add = |seed| results.add(&results.cell("qdrop", "W2A2", seed), &first(80, 100));
    let ids: Vec<String> = (0..3).map(add).collect();
    let store = Store::new(&results.path(), "made");
    let alter = |id: &str, from: &str, to: &str| {
        let path = store.run_folder(id).join("record.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    };
    alter(&ids[1], "\"seed\": 1", "\"seed\": 7");
    alter(&ids[2], "\"test_top1\": 0.8", "\"test_top1\": 9.93");
    let list = results.harness(&["list"]);
    assert_contains(&list.stdout, &[&ids[0], "80.00", "1 run, 0 failed, 2 damaged folders skipped"]);
    assert!(!list.stdout.contains("993") && !list.stdout.contains("s7"), "{}", list.stdout);
    let unlike = format!("run_id is {}, but cell, hashes and revisions make resnet20-w2a2-qdrop-s7", ids[1]);
    let too_large = format!("{}/record.json: metrics.test_top1 is 9.93, expected a fraction from 0 to 1", ids[2]);
    assert_contains(&list.stderr, &[&unlike, &too_large]);
    // What could be true, but is not what the stored predictions say.
    alter(&ids[0], "\"test_top1\": 0.8", "\"test_top1\": 0.81");
    let problem = "metrics.test_top1 is 0.81, but 80 of 100 predictions";
    assert_contains(&results.harness(&["show", &ids[0]]).stderr, &[problem]);
    let verify = results.harness(&["verify", &ids[0]]);
    assert_eq!(verify.code, 100, "{}", verify.stderr);
    assert_contains(&verify.stdout, &["its record is not that of its predictions", problem]);
}

#[test]
fn what_others_wrote_commands_no_terminal_and_makes_no_html() {
    let results = Results::new();
    let base = "[base]\narch = \"resnet20\"\nmethod = \"qdrop\"\nbits = \"W2A2\"\ncalib-images = 32\n";
    results.write("grid.toml", &format!("name = \"made\"\ntitle = \"A <script>alert(1)</script>\"\n{base}"));
    let (cell, _) = results.planned("grid.toml").remove(0);
    let made = results.planned_record("made", &cell, &first(80, 100));
    results.store(&made, &first(80, 100));
    let mut failed = results.record("made", &results.cell("qdrop", "W2A2", 1), &[true]);
    (failed.status, failed.error, failed.metrics) = (Status::Failed, Some("bad\u{1b}[31m \u{9b}2J<b>".into()), None);
    results.store(&failed, &[]);
    let hostile = "look \u{1b}]0;owned\u{7}\r";
    let written = "look \\u001b]0;owned\\u0007";
    let noted = results.harness(&["note", &made.run_id, hostile]);
    assert_contains(&noted.stdout, &[written]);
    for args in [&["show", &made.run_id][..], &["list"], &["list", "--format", "csv"], &["list", "--filter", "note(*)"]]
    {
        let end = results.harness(args);
        assert_contains(&end.stdout, &[written]);
        assert!(!end.stdout.contains(['\u{1b}', '\u{7}', '\r']), "{}", end.stdout);
    }
    let json: serde_json::Value = serde_json::from_str(&results.harness(&["list", "--json"]).stdout).unwrap();
    let texts = |run: &serde_json::Value| (run["notes"][0]["text"].clone(), run["error"].clone());
    let (texts, errors): (Vec<_>, Vec<_>) = json["runs"].as_array().unwrap().iter().map(texts).unzip();
    assert!(texts.contains(&hostile.into()) && errors.contains(&"bad\u{1b}[31m \u{9b}2J<b>".into()), "{json}");
    let shown = results.harness(&["show", &failed.run_id]);
    assert_contains(&shown.stdout, &["failed: bad\\u001b[31m \\u009b2J<b>"]);
    let report = results.harness(&["report", "grid.toml"]);
    assert_eq!(report.code, 0, "{}", report.stderr);
    let markdown = std::fs::read_to_string(results.path().join("made/accuracy.md")).unwrap();
    assert!(
        markdown.starts_with("# A &lt;script>alert(1)&lt;/script>\n") && !markdown.contains("<script"),
        "{markdown}"
    );
    // In a grid, a filter, and a name that there is not.
    results.write("bad.toml", "name = \"x\u{1b}[2J\"\n");
    for args in [&["plan", "bad.toml"][..], &["list", "--filter", "\u{1b}[2J"], &["show", "\u{1b}[2J"]] {
        let end = results.harness(args);
        assert!(end.code != 0 && !end.stderr.contains('\u{1b}') && end.stderr.contains("[2J"), "{}", end.stderr);
    }
}
