//! Grids on folders of colour images, with a checkpoint that says how it wants them.

use crate::cli::Bench;
use candle_core::{Device, Tensor};
use metaaug::store::{Predictions, Store};
use std::collections::HashMap;
use std::path::Path;

const GRID: &str = r#"
name = "images"
[base]
arch = "resnet20"
weights = "file:model.safetensors"
dataset = "image-folder"
data = "folder:photos"
bits = "W8A8"
calib-images = 16
recipe = { iterations = 2, batch = 8 }
[axes]
method = ["rtn", "qdrop"]
"#;

const CONFIG: &str = r#"{"architecture": "resnet20", "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 0.875,
    "interpolation": "bicubic", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}}"#;

/// A photograph of noise whose content is its number.
fn write_image(path: &Path, number: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let (width, height) = (48, 40 + number as u32 % 7);
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), width, height);
    encoder.set_color(png::ColorType::Rgb);
    let levels: Vec<u8> = (0..(width * height * 3) as usize).map(|i| (i * (2 * number + 7) / 5) as u8).collect();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&levels).unwrap();
    writer.finish().unwrap();
}

/// Ten classes with three training and two test images each, and ResNet-20 for three channels.
fn bench(grid: &str) -> Bench {
    let bench = Bench::new(grid);
    for class in 0..10 {
        for (split, images) in [("train", 3), ("val", 2)] {
            for image in 0..images {
                let path = format!("photos/{split}/class{class}/{image}.png");
                write_image(&bench.path().join(path), 10 * image + class);
            }
        }
    }
    let grey = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/resnet20-fashion-mnist/model.safetensors");
    let mut tensors: HashMap<String, Tensor> = candle_core::safetensors::load(grey, &Device::Cpu).unwrap();
    let stem = (&tensors["conv1.weight"] / 3.0).unwrap();
    tensors.insert("conv1.weight".to_string(), Tensor::cat(&[&stem, &stem, &stem], 1).unwrap());
    candle_core::safetensors::save(&tensors, bench.path().join("model.safetensors")).unwrap();
    std::fs::write(bench.path().join("config.json"), CONFIG).unwrap();
    bench
}

#[test]
fn a_grid_on_a_folder_of_colour_images_runs_from_end_to_end() {
    let bench = bench(GRID);
    let run = bench.harness(&["run", "grid.toml"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let store = Store::new(&bench.path().join("results"), "images");
    let records = store.scan().unwrap().records;
    assert_eq!(records.len(), 2);
    for record in &records {
        let metrics = record.metrics.as_ref().unwrap();
        assert_eq!((metrics.test_images, metrics.skipped_images, metrics.skipped_calib_images), (20, 0, 0));
        let preprocess = record.preprocess.as_ref().unwrap();
        assert_eq!((preprocess.resize, preprocess.crop, &preprocess.mean[..]), (36, (32, 32), &[0.5, 0.4, 0.3][..]));
        let predictions = Predictions::read(&store.run_folder(&record.run_id)).unwrap();
        assert_eq!((predictions.calib_indices.len(), predictions.test.len()), (16, 20));
        // Sorted by class, three images each.
        let expected: Vec<u32> = predictions.calib_indices.iter().map(|index| index / 3).collect();
        assert_eq!(predictions.calib_labels, expected);
    }
    // Test images that changed places are another test set, even if names and sizes are the same.
    let [a, b] = [0, 1].map(|image| bench.path().join(format!("photos/val/class3/{image}.png")));
    let contents = [&a, &b].map(|path| std::fs::read(path).unwrap());
    std::fs::write(&a, &contents[1]).unwrap();
    std::fs::write(&b, &contents[0]).unwrap();
    assert!(bench.harness(&["plan", "grid.toml"]).stdout.contains("2 cells, 0 done"));
    std::fs::write(&a, &contents[0]).unwrap();
    std::fs::write(&b, &contents[1]).unwrap();
    assert!(bench.harness(&["plan", "grid.toml"]).stdout.contains("2 cells, 2 done"));
    // Where the images lie is no part of what a run is; how they are preprocessed is.
    std::fs::rename(bench.path().join("photos"), bench.path().join("elsewhere")).unwrap();
    let moved = ["plan", "grid.toml", "--set", "data=folder:elsewhere"];
    assert!(bench.harness(&moved).stdout.contains("2 cells, 2 done"));
    std::fs::write(bench.path().join("config.json"), CONFIG.replace("bicubic", "bilinear")).unwrap();
    assert!(bench.harness(&moved).stdout.contains("2 cells, 0 done"));
}

#[test]
fn a_transform_network_is_trained_on_colour_images_and_drawn() {
    let method = "method = [\"metaaug\"]\n\"transform.base\" = [2]\n\"transform.depth\" = [1]\n\
                  \"transform.warmup-iterations\" = [2]\n\"meta.iterations\" = [2]\n\"meta.batch\" = [8]\n\
                  \"meta.outer-batch\" = [8]\naugment = [[\"contrast\", \"rotation\"]]";
    let bench = bench(&GRID.replace("method = [\"rtn\", \"qdrop\"]", method));
    let run = bench.harness(&["run", "grid.toml"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(bench.path().join("results/images/transforms.png").exists());
}

#[test]
fn corrupt_images_fail_a_cell_or_are_counted() {
    let bench = bench(&GRID.replace("\"rtn\", ", ""));
    std::fs::write(bench.path().join("photos/val/class3/1.png"), b"\x89PNG but nothing else").unwrap();
    let run = bench.harness(&["run", "grid.toml"]);
    assert_eq!(run.code, 100, "{}", run.stderr);
    let record = Store::new(&bench.path().join("results"), "images").scan().unwrap().records.remove(0);
    let error = record.error.unwrap();
    assert!(error.contains("photos/val/class3/1.png") && error.contains("corrupt = \"skip\""), "{error}");

    let run = bench.harness(&["run", "grid.toml", "--set", "corrupt=skip"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("skipped: ") && run.stderr.contains("class3/1.png"), "{}", run.stderr);
    let records = Store::new(&bench.path().join("results"), "images").scan().unwrap().records;
    let metrics = records.iter().find_map(|record| record.metrics.as_ref()).unwrap();
    assert_eq!((metrics.test_images, metrics.skipped_images), (19, 1));
}

#[test]
fn a_network_that_pytorch_finds_nan_in_is_a_recorded_failure() {
    let bench = bench(&GRID.replace("\"rtn\", ", ""));
    let path = bench.path().join("model.safetensors");
    let mut tensors: HashMap<String, Tensor> = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let variances = (&tensors["layer1.0.bn1.running_var"] * -1.0).unwrap();
    tensors.insert("layer1.0.bn1.running_var".to_string(), variances);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let run = bench.harness(&["run", "grid.toml"]);
    assert_eq!(run.code, 100, "{}", run.stderr);
    let record = Store::new(&bench.path().join("results"), "images").scan().unwrap().records.remove(0);
    let error = record.error.unwrap();
    assert!(error.contains("layer1.0.bn1.running_var is -") && error.contains("has no root"), "{error}");
}

#[test]
fn data_that_do_not_fit_are_refused_with_what_is_wrong() {
    let bench = bench(GRID);
    for (set, problem) in [
        ("dataset=imagenet", "10 classes, but imagenet has 1000"),
        ("data=folder:nowhere", "nowhere/val: there is no such folder"),
        ("data=parquet:photos", "holds no validation-*.parquet"),
        ("data=photos", "is not embedded, folder:PATH, parquet:PATH"),
        ("corrupt=ignore", "unknown value `ignore`"),
        ("calib-images=31", "must be 1 to 30, the size of the pool"),
        ("dataset=imagnet", "did you mean imagenet?"),
    ] {
        let plan = bench.harness(&["plan", "grid.toml", "--set", set]);
        assert!(plan.code != 0 && plan.stderr.contains(problem), "{set}: {}", plan.stderr);
    }
    // A part of the classes would be other classes.
    std::fs::remove_dir_all(bench.path().join("photos/val/class9")).unwrap();
    std::fs::remove_dir_all(bench.path().join("photos/train/class9")).unwrap();
    let run = bench.harness(&["run", "grid.toml", "--filter", "method(rtn)"]);
    assert!(run.code == 100 && run.stderr.contains("tells 10 classes apart, the data have 9"), "{}", run.stderr);
    let doctor = bench.harness(&["doctor"]);
    assert!(doctor.stdout.contains("fashion-mnist"), "{}", doctor.stdout);
}
