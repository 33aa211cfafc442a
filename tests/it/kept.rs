//! Quantized networks that runs keep: `--save-model`, `harness evaluate`, `harness export --onnx`.

use crate::cli::{Bench, assert_contains};
use candle_core::{Device, Tensor};
use metaaug::disk::sha256;
use metaaug::store::{Pictures, SavedModel, SavedTransform, Store, transform_file};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const GRID: &str = r#"
name = "kept"
save-model = true
[base]
arch = "mobilenetv2-tiny"
bits = "W3A4"
calib-images = 32
recipe = { iterations = 2, batch = 8 }
[variants.flexround]
method = "flexround"
[variants.genie-m]
method = "genie-m"
"#;

/// A cell that takes no training.
const ROUNDED: &str = r#"
name = "kept"
save-model = true
[base]
arch = "mobilenetv2-tiny"
bits = "W3A4"
calib-images = 32
method = "rtn"
"#;

/// The folders of the stored runs.
fn folders(bench: &Bench, results: &str) -> Vec<PathBuf> {
    let store = Store::new(&bench.path().join(results), "kept");
    store.scan().unwrap().records.iter().map(|record| store.run_folder(&record.run_id)).collect()
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

/// Four IDX files in a folder: `images` of 28 x 28 levels in every split, of the classes 0 to 9 in turn.
fn write_idx(folder: &Path, images: usize) {
    let levels = (0..images * 784).map(|at| (at * 31 % 251) as u8);
    let header = |magic: u32, extents: &[usize]| {
        let numbers = [magic].into_iter().chain(extents.iter().map(|extent| *extent as u32));
        numbers.flat_map(u32::to_be_bytes).collect::<Vec<u8>>()
    };
    let of_images: Vec<u8> = header(0x803, &[images, 28, 28]).into_iter().chain(levels).collect();
    let of_labels: Vec<u8> =
        header(0x801, &[images]).into_iter().chain((0..images).map(|image| (image % 10) as u8)).collect();
    for split in ["train", "t10k"] {
        std::fs::write(folder.join(format!("{split}-images-idx3-ubyte")), &of_images).unwrap();
        std::fs::write(folder.join(format!("{split}-labels-idx1-ubyte")), &of_labels).unwrap();
    }
}

#[test]
fn a_kept_network_gives_its_runs_predictions_and_measures_other_images() {
    let bench = Bench::new(GRID);
    let run = bench.harness(&["run", "grid.toml"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let folders = folders(&bench, "results");
    for folder in &folders {
        let id = folder.file_name().unwrap().to_str().unwrap();
        let end = bench.harness(&["evaluate", id]);
        assert_eq!(end.code, 0, "{}{}", end.stdout, end.stderr);
        let parts = ["the same as the run's 10000 predictions, bit for bit", "bits per weight    3.", " dB"];
        assert_contains(&end.stdout, &parts);
        let end = bench.harness(&["evaluate", folder.to_str().unwrap(), "--split", "calib"]);
        assert_contains(
            &end.stdout,
            &["the same as the run's 32 predictions", "(32 images of Fashion-MNIST, embedded)"],
        );
    }
    write_idx(bench.path(), 50);
    let weights = folders[0].join("model.safetensors");
    let other = ["evaluate", weights.to_str().unwrap(), "--dataset", "mnist", "--data", "idx:."];
    let end = bench.harness(&other);
    assert_eq!(end.code, 0, "{}{}", end.stdout, end.stderr);
    assert_contains(&end.stdout, &["(50 images of MNIST, idx:.)", "other images than the run's"]);
    let end = bench.harness(&["evaluate", weights.to_str().unwrap(), "--dataset", "nothing"]);
    assert_eq!(end.code, 2, "{}", end.stderr);
    // Another prediction is told.
    let path = folders[0].join("predictions.safetensors");
    let mut predictions = std::fs::read(&path).unwrap();
    let last = predictions.len() - 10_000 * 4 * 2 - 4;
    predictions[last..].iter_mut().step_by(4).for_each(|byte| *byte ^= 1);
    std::fs::write(&path, predictions).unwrap();
    let end = bench.harness(&["evaluate", weights.to_str().unwrap()]);
    assert_eq!(end.code, 100, "{}{}", end.stdout, end.stderr);
    assert_contains(&end.stdout, &["DIFFERENT: "]);
}

#[test]
fn keeping_a_network_changes_no_id_and_a_process_of_its_own_leaves_the_same() {
    let bench = Bench::new(&GRID.replace("save-model = true", ""));
    let only = ["--filter", "method(genie-m)"];
    let run = |more: &[&str]| {
        let end = bench.harness(&[&["run", "grid.toml"], &only[..], more].concat());
        assert_eq!(end.code, 0, "{}", end.stderr);
        end.stderr
    };
    run(&[]);
    let [folder] = &folders(&bench, "results")[..] else { panic!("one run") };
    assert!(!folder.join("model.safetensors").exists() && !folder.join("config.json").exists());
    let end = bench.harness(&["evaluate", folder.to_str().unwrap()]);
    assert_eq!(end.code, 96);
    assert_contains(&end.stderr, &["no network was kept here", "--save-model"]);
    let said = run(&["--save-model"]);
    assert_contains(&said, &["1 stored runs were made without --save-model; --fresh runs them again"]);
    run(&["--save-model", "--fresh"]);
    run(&["--save-model", "--isolate", "--results", "own"]);
    let [own] = &folders(&bench, "own")[..] else { panic!("one run") };
    assert_eq!(folders(&bench, "results"), std::slice::from_ref(folder));
    for name in ["model.safetensors", "config.json"] {
        assert!(read(folder, name) == read(own, name), "{name}");
    }
}

#[test]
fn a_transform_network_is_kept_where_there_is_one() {
    let bench = Bench::new(
        "name = \"kept\"\nsave-transform = true\n[base]\narch = \"resnet20\"\nbits = \"W4A4\"\ncalib-images = 16\n\
         recipe = { iterations = 2, batch = 8 }\nmeta = { iterations = 1, batch = 8, outer-batch = 8 }\n[variants.plain]\n\
         method = \"rtn\"\n[variants.spatial]\nmethod = \"qdrop\"\ntransform = { net = \"spatial\", warmup-iterations = 3, warmup-batch = 8 }\n",
    );
    let end = bench.harness(&["run", "grid.toml"]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    for folder in folders(&bench, "results") {
        let path = folder.join("transform.safetensors");
        assert_eq!(path.exists(), folder.to_str().unwrap().contains("spatial"), "{}", path.display());
        assert!(!folder.join("model.safetensors").exists());
    }
}

#[test]
fn a_kept_transform_network_makes_its_runs_pictures_and_is_measured() {
    let bench = Bench::new(
        "name = \"kept\"\nsave-model = true\nsave-transform = true\n[base]\narch = \"resnet20\"\nbits = \"W4A4\"\ncalib-images = 16\n\
         method = \"metaaug\"\nrecipe = { iterations = 2, batch = 8 }\nmeta = { iterations = 1, batch = 8, outer-batch = 8 }\n\
         transform = { base = 2, depth = 1, warmup-iterations = 3, warmup-batch = 8 }\n",
    );
    let end = bench.harness(&["run", "grid.toml"]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    let [folder] = &folders(&bench, "results")[..] else { panic!("one run") };
    let saved = SavedModel::open(folder).unwrap();
    let transform = SavedTransform::open(&saved, &Device::Cpu).unwrap();
    let pictures = Pictures::read(folder).unwrap().unwrap();
    let t_x = transform.net.forward(&pictures.x, transform.net.config.statistics).unwrap();
    let bits = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(bits(&t_x), bits(&pictures.t_x));

    let end = bench.harness(&["evaluate", "resnet20", "--transformed"]);
    assert_eq!(end.code, 0, "{}{}", end.stdout, end.stderr);
    assert_contains(
        &end.stdout,
        &["the same as the run's 16 predictions", "transform          unet, SHA-256 ", "change of pixels   "],
    );
    assert_contains(&end.stdout, &["same class", "quantized top-1", "full precision", "both agree"]);
    let end = bench.harness(&["evaluate", "resnet20", "--transformed", "--split", "test"]);
    assert_eq!(end.code, 2, "{}", end.stderr);

    let path = folder.join("transform.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let altered = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        edit(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
    };
    let other: HashMap<String, Tensor> = [("x".to_string(), Tensor::new(1f32, &Device::Cpu).unwrap())].into();
    let id = folder.file_name().unwrap().to_str().unwrap();
    let cases: [(&str, &dyn Fn()); 6] = [
        ("not a complete safetensors file", &|| altered(&|bytes| bytes.truncate(bytes.len() - 4))),
        ("not a complete safetensors file", &|| altered(&|bytes| bytes.truncate(5))),
        ("it was altered; copy it again", &|| altered(&|bytes| *bytes.last_mut().unwrap() ^= 1)),
        ("is not the network unet of config.json", &|| {
            std::fs::write(&path, transform_file(&other, id).unwrap()).unwrap();
        }),
        ("it is of run another, not of resnet20", &|| {
            std::fs::write(&path, transform_file(&transform.net.parameters.tensors().unwrap(), "another").unwrap())
                .unwrap();
        }),
        ("holds no transform network", &|| std::fs::remove_file(&path).unwrap()),
    ];
    for (expected, damage) in cases {
        damage();
        let end = bench.harness(&["evaluate", "resnet20", "--transformed"]);
        assert_eq!(end.code, 96, "{expected}: {}{}", end.stdout, end.stderr);
        assert_contains(&words(&end.stderr), &[expected]);
        assert!(!end.stderr.contains("panicked"), "{}", end.stderr);
    }
}

/// A report without its frame and the ends of its lines, which are somewhere.
fn words(report: &str) -> String {
    let words = report.split(['\n', ' ', '│', '×', '╰', '─', '▶']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Changes `config.json` in `folder`.
fn describe(folder: &Path, edit: &dyn Fn(&mut Value)) {
    let mut config: Value = serde_json::from_slice(&read(folder, "config.json")).unwrap();
    edit(&mut config);
    std::fs::write(folder.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
}

/// Changes `model.safetensors` in `folder`, and its size and hash in `config.json`.
fn forge(folder: &Path, edit: &dyn Fn(&mut Vec<u8>)) {
    let mut bytes = read(folder, "model.safetensors");
    edit(&mut bytes);
    std::fs::write(folder.join("model.safetensors"), &bytes).unwrap();
    describe(folder, &|config| {
        config["weights"]["bytes"] = bytes.len().into();
        config["weights"]["sha256"] = sha256(&[&bytes]).into();
    });
}

#[test]
fn what_is_no_kept_network_is_one_error_and_nothing_is_written() {
    let bench = Bench::new(ROUNDED);
    assert_eq!(bench.harness(&["run", "grid.toml"]).code, 0);
    let [folder] = &folders(&bench, "results")[..] else { panic!("one run") };
    let copy = bench.path().join("copy");
    let cases: [(&str, &dyn Fn()); 15] = [
        ("has SHA-256", &|| {
            let mut bytes = read(&copy, "model.safetensors");
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(copy.join("model.safetensors"), bytes).unwrap();
        }),
        ("it is cut short, or another's", &|| {
            let bytes = read(&copy, "model.safetensors");
            std::fs::write(copy.join("model.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("cannot read", &|| std::fs::remove_file(copy.join("model.safetensors")).unwrap()),
        ("not the description of a quantized network", &|| {
            let json = read(&copy, "config.json");
            std::fs::write(copy.join("config.json"), &json[..json.len() / 2]).unwrap();
        }),
        ("format 2, but this harness knows 1: use a newer harness", &|| {
            describe(&copy, &|config| {
                config["format"] = 2.into();
                config["more"] = 1.into();
            });
        }),
        ("unknown field `more`", &|| describe(&copy, &|config| config["more"] = 1.into())),
        ("weights of resnet20 do not fit", &|| {
            describe(&copy, &|config| config["network"]["architecture"] = "resnet20".into());
        }),
        ("levels of 4 bits take", &|| {
            describe(&copy, &|config| config["network"]["units"][1]["weights"][0]["bits"] = 4.into());
        }),
        ("more than there can be", &|| {
            describe(&copy, &|config| config["network"]["units"][1]["weights"][0]["shape"][0] = u64::MAX.into());
        }),
        ("classes are described", &|| {
            describe(&copy, &|config| config["network"]["classes"] = 1_000_000_000_000u64.into())
        }),
        ("the network takes [1, 28, 29]", &|| describe(&copy, &|config| config["network"]["input"][2] = 29.into())),
        ("out of a side of 1000000", &|| describe(&copy, &|config| config["preprocess"]["resize"] = 1_000_000.into())),
        ("not a complete safetensors file", &|| forge(&copy, &|bytes| bytes.truncate(bytes.len() - 1))),
        // The length of the header.
        ("not a complete safetensors file", &|| forge(&copy, &|bytes| bytes[..8].fill(0xff))),
        ("holds NaN or infinite numbers", &|| {
            forge(&copy, &|bytes| {
                let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
                // The largest alignment comes first: a tensor of f32.
                bytes[8 + header..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
            });
        }),
    ];
    for (expected, damage) in cases {
        std::fs::create_dir(&copy).unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(folder.join(name), copy.join(name)).unwrap();
        }
        damage();
        for arguments in [&["evaluate", "copy"][..], &["export", "--onnx", "out.onnx", "copy"]] {
            let end = bench.harness(arguments);
            assert_eq!(end.code, 96, "{expected}: {}{}", end.stdout, end.stderr);
            assert_contains(&words(&end.stderr), &[expected]);
            assert!(!end.stderr.contains("panicked"), "{}", end.stderr);
        }
        assert!(!bench.path().join("out.onnx").exists());
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

#[test]
fn the_onnx_model_of_one_run_is_written() {
    let bench = Bench::new(ROUNDED);
    assert_eq!(bench.harness(&["run", "grid.toml"]).code, 0);
    let [folder] = &folders(&bench, "results")[..] else { panic!("one run") };
    let end = bench.harness(&["export", "--onnx", "out.onnx", "mobilenetv2-tiny-w3a4"]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    let written = std::fs::read(bench.path().join("out.onnx")).unwrap();
    assert_eq!(written, metaaug::export::onnx::file(&SavedModel::open(folder).unwrap()).unwrap());
    let end = bench.harness(&["export", "--hub", "hub", "mobilenetv2-tiny-w3a4"]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    let hub = bench.path().join("hub");
    assert!(read(&hub, "model.onnx") == written && read(&hub, "config.json") == read(folder, "config.json"));
    assert!(read(&hub, "model.safetensors") == read(folder, "model.safetensors"));
    let card = String::from_utf8(read(&hub, "README.md")).unwrap();
    assert_contains(
        &card,
        &[
            "---\nlicense: apache-2.0\nlibrary_name: onnx\n",
            "    metrics:\n    - type: accuracy\n      value: 0.",
            "by rtn (qdrop setting",
        ],
    );
    let end = bench.harness(&["evaluate", "hub"]);
    assert_eq!(end.code, 0, "{}", end.stderr);
    assert_contains(&end.stdout, &["its predictions do not lie beside the network"]);
    let end = bench.harness(&["export", "--onnx", "out.onnx"]);
    assert_eq!(end.code, 2);
    assert_contains(&end.stderr, &["--onnx and --hub write one network"]);
}
