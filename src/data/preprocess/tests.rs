use super::*;
use crate::data::decode::decode;
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;

/// What Pillow makes of photographs (`scripts/make_preprocess_golden.py`).
fn golden() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/preprocess.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    assert_eq!(tensor.dtype(), DType::U8);
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The tensors under `kind/`, with the rest of their names in parts.
fn under<'a>(golden: &'a HashMap<String, Tensor>, kind: &str) -> Vec<(Vec<&'a str>, &'a Tensor)> {
    let parts = |name: &'a String| name.split('/').collect::<Vec<_>>();
    let mut found: Vec<_> = golden.iter().map(|(name, tensor)| (parts(name), tensor)).collect();
    found.retain(|(parts, _)| parts[0] == kind);
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!found.is_empty(), "{kind}");
    found
}

fn interpolation(name: &str) -> Interpolation {
    serde_json::from_value(name.into()).unwrap()
}

/// Largest and mean difference of two images, in levels.
fn difference(ours: &[u8], theirs: &[u8]) -> (u8, f64) {
    assert_eq!(ours.len(), theirs.len());
    let differences = || ours.iter().zip(theirs).map(|(ours, theirs)| ours.abs_diff(*theirs));
    let sum: f64 = differences().map(f64::from).sum();
    (differences().max().unwrap_or(0), sum / ours.len() as f64)
}

#[test]
fn resized_photographs_are_pillows_to_the_last_bit() {
    let golden = golden();
    for (name, expected) in under(&golden, "resized") {
        let photo = decode(&bytes(&golden[&format!("photo/{}", name[1])]), 3).unwrap();
        let (height, width, _) = expected.dims3().unwrap();
        let whole = Window { top: 0, left: 0, height, width };
        let resized = resize(&photo, (height, width), whole, interpolation(name[2]));
        assert_eq!(difference(&resized.data, &bytes(expected)), (0, 0.0), "{name:?}");
    }
}

#[test]
fn network_inputs_are_torchvisions() {
    let golden = golden();
    for (name, expected) in under(&golden, "input") {
        let photo = decode(&bytes(&golden[&format!("photo/{}", name[1])]), 3).unwrap();
        let (resize, crop) = (name[3].parse().unwrap(), name[4].parse().unwrap());
        let interpolation = interpolation(name[2]);
        let preprocess = Preprocess { resize, crop: (crop, crop), interpolation, ..Preprocess::imagenet() };
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let ours = preprocess.apply(&photo);
        assert_eq!(ours.len(), expected.len());
        let worst = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-6, "{name:?}: {worst}");
    }
}

#[test]
fn decoded_files_are_pillows_within_the_freedom_of_jpeg() {
    let golden = golden();
    for (name, file) in under(&golden, "file") {
        let (kind, file) = (name[1], bytes(file));
        let expected = decode(&bytes(&golden[&format!("decoded/{kind}")]), 3).unwrap();
        let ours = decode(&file, 3).unwrap();
        assert_eq!((ours.height, ours.width, ours.channels), (expected.height, expected.width, 3), "{kind}");
        let (worst, mean) = difference(&ours.data, &expected.data);
        let is_jpeg = file.starts_with(&[0xff, 0xd8]);
        // Rounding in the inverse transform and in the colours is free; PNG is exact.
        assert!(
            if is_jpeg { worst <= 3 && mean < 0.5 } else { worst == 0 },
            "{kind}: {worst} at most, {mean} on average"
        );
        if let Some(luma) = golden.get(&format!("luma/{kind}")) {
            let (worst, _) = difference(&decode(&file, 1).unwrap().data, &bytes(luma));
            assert!(worst <= if is_jpeg { 3 } else { 0 }, "{kind}: {worst}");
        }
    }
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let golden = golden();
    for (name, file) in under(&golden, "file") {
        let (kind, file) = (name[1], bytes(file));
        for kept in [0, 1, 3, 20, file.len() / 3, file.len() - 400, file.len() - 9, file.len() - 2] {
            assert!(decode(&file[..kept], 3).is_err(), "{kind} cut to {kept} of {}", file.len());
        }
        // What an altered byte does is up to the format: an error or other pixels.
        for at in (0..file.len()).step_by(7) {
            let mut altered = file.clone();
            altered[at] = altered[at].wrapping_add(0x55);
            let _ = decode(&altered, 3);
        }
    }
    for (bytes, problem) in [
        (&b"GIF89a"[..], "GIF"),
        (b"RIFF....WEBP", "neither JPEG nor PNG"),
        (b"", "empty"),
        (&[0xff, 0xd8, 0xff], "JPEG"),
    ] {
        assert!(decode(bytes, 3).unwrap_err().contains(problem), "{bytes:?}");
    }
}

#[test]
fn an_animated_png_is_refused() {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 2, 2);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    (0..2).for_each(|_| writer.write_image_data(&[0; 4]).unwrap());
    writer.finish().unwrap();
    assert_eq!(decode(&file, 1).unwrap_err(), "an animated PNG");
}

#[test]
fn timms_configuration_is_understood() {
    let json = |fields: &str| format!("{{\"architecture\": \"x\", \"pretrained_cfg\": {{{fields}}}}}");
    let resnet50 = json(
        "\"input_size\": [3, 224, 224], \"test_input_size\": null, \"crop_pct\": 0.95, \"crop_mode\": \"center\", \
         \"interpolation\": \"bicubic\", \"mean\": [0.5, 0.4, 0.3], \"std\": [0.1, 0.2, 0.3], \"num_classes\": 1000",
    );
    let preprocess = Preprocess::from_timm_config(&resnet50).unwrap().unwrap();
    assert_eq!(
        (preprocess.resize, preprocess.crop, preprocess.interpolation),
        (235, (224, 224), Interpolation::Bicubic)
    );
    assert_eq!((&preprocess.mean[..], &preprocess.std[..]), (&[0.5, 0.4, 0.3][..], &[0.1, 0.2, 0.3][..]));
    // Old files have no pretrained_cfg; what is absent is timm's default.
    let old = Preprocess::from_timm_config("{\"input_size\": [3, 240, 240], \"interpolation\": \"bilinear\"}").unwrap();
    let old = old.unwrap();
    assert_eq!(old, Preprocess { resize: 274, crop: (240, 240), ..Preprocess::imagenet() });
    for (fields, problem) in [
        ("\"crop_mode\": \"squash\"", "crop_mode \"squash\""),
        ("\"interpolation\": \"lanczos\"", "\"lanczos\""),
        ("\"input_size\": [3, 224, 192]", "not square"),
        ("\"input_size\": [1, 28, 28]", "3 means for 1 channels"),
        ("\"crop_pct\": 0", "crop_pct 0"),
        ("\"std\": [0.1, 0.0, 0.1]", "std"),
        ("\"input_size\": [3, 0, 0]", "empty crop"),
        ("\"mean\": \"imagenet\"", "pretrained_cfg"),
    ] {
        let error = Preprocess::from_timm_config(&json(fields)).unwrap_err().to_string();
        assert!(error.starts_with("config.json") && error.contains(problem), "{error}");
    }
    assert_eq!(Preprocess::from_timm_config("{\"model_type\": \"resnet\"}").unwrap(), None);
    assert!(Preprocess::from_timm_config("not json").unwrap_err().to_string().contains("not JSON"));
}

#[test]
fn centre_crops_begin_where_pythons_round_says() {
    assert_eq!([0, 1, 2, 3, 4, 5, 7].map(half_to_even), [0, 0, 1, 2, 2, 2, 4]);
}
