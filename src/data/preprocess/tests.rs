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
fn squashed_and_bordered_crops_are_timms() {
    let golden = golden();
    for (mode, crop_mode) in [("squash", CropMode::Squash), ("border", CropMode::Border)] {
        for (name, expected) in under(&golden, mode) {
            let photo = decode(&bytes(&golden[&format!("photo/{}", name[1])]), 3).unwrap();
            let (resize, crop) = (name[3].parse().unwrap(), name[4].parse().unwrap());
            let interpolation = interpolation(name[2]);
            let preprocess =
                Preprocess { resize, crop: (crop, crop), interpolation, crop_mode, ..Preprocess::imagenet() };
            let cropped = preprocess.cropped(&photo);
            assert_eq!((cropped.height, cropped.width), preprocess.crop, "{name:?}");
            assert_eq!(difference(&cropped.data, &bytes(expected)), (0, 0.0), "{name:?}");
        }
    }
    // Nothing is left of the shorter side but a row.
    let line = Pixels { height: 1, width: 400, channels: 1, data: vec![9; 400] };
    let border = Preprocess { crop_mode: CropMode::Border, ..Preprocess::unresized(20, &[0.5], &[0.5]) };
    let cropped = border.cropped(&line).data;
    assert_eq!((cropped.iter().filter(|level| **level == 9).count(), cropped[0]), (20, 128));
}

#[test]
fn decoded_files_are_pillows() {
    let golden = golden();
    for (name, file) in under(&golden, "file") {
        let (kind, file) = (name[1], bytes(file));
        let expected = decode(&bytes(&golden[&format!("decoded/{kind}")]), 3).unwrap();
        let ours = decode(&file, 3).unwrap();
        assert_eq!((ours.height, ours.width, ours.channels), (expected.height, expected.width, 3), "{kind}");
        assert_eq!(difference(&ours.data, &expected.data), (0, 0.0), "{kind}");
        if let Some(luma) = golden.get(&format!("luma/{kind}")) {
            assert_eq!(difference(&decode(&file, 1).unwrap().data, &bytes(luma)), (0, 0.0), "{kind}");
        }
    }
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let golden = golden();
    for (name, file) in under(&golden, "file") {
        let (kind, file) = (name[1], bytes(file));
        // Without its end marker a JPEG may have all its rows.
        let nearly = if file.starts_with(&[0xff, 0xd8]) { 400 } else { 2 };
        for kept in [0, 1, 3, 20, file.len() / 3, file.len() - 400, file.len() - nearly] {
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
        (b"RIFF....WEBP", "WebP"),
        (b"RIFF....WAVE", "no image that is read here"),
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
    let from = |config: &str| Preprocess::from_timm_config(config, CardSize::Test);
    let preprocess = from(&resnet50).unwrap().unwrap();
    assert_eq!(
        (preprocess.resize, preprocess.crop, preprocess.interpolation),
        (235, (224, 224), Interpolation::Bicubic)
    );
    assert_eq!((&preprocess.mean[..], &preprocess.std[..]), (&[0.5, 0.4, 0.3][..], &[0.1, 0.2, 0.3][..]));
    // Old files have no pretrained_cfg; what is absent is timm's default.
    let old = from("{\"input_size\": [3, 240, 240], \"interpolation\": \"bilinear\"}").unwrap().unwrap();
    assert_eq!(old, Preprocess { resize: 274, crop: (240, 240), ..Preprocess::imagenet() });
    for (fields, problem) in [
        ("\"crop_mode\": \"corner\"", "crop_mode \"corner\""),
        ("\"interpolation\": \"lanczos\"", "\"lanczos\""),
        ("\"input_size\": [3, 224, 192]", "not square"),
        ("\"test_input_size\": [3, 224, 192]", "test_input_size: an input of 224 x 192"),
        ("\"test_crop_pct\": 1.5", "test_crop_pct 1.5"),
        ("\"input_size\": [1, 28, 28]", "3 means for 1 channels"),
        ("\"crop_pct\": 0", "crop_pct 0"),
        ("\"std\": [0.1, 0.0, 0.1]", "std"),
        ("\"input_size\": [3, 0, 0]", "empty crop"),
        ("\"mean\": \"imagenet\"", "pretrained_cfg"),
    ] {
        let error = from(&json(fields)).unwrap_err().to_string();
        assert!(error.starts_with("config.json") && error.contains(problem), "{error}");
    }
    assert_eq!(from("{\"model_type\": \"resnet\"}").unwrap(), None);
    assert!(from("not json").unwrap_err().to_string().contains("not JSON"));
}

#[test]
fn a_card_with_a_size_for_testing_is_tested_at_it() {
    // As resnet50.a1_in1k's.
    let both = "{\"input_size\": [3, 224, 224], \"test_input_size\": [3, 288, 288], \"crop_pct\": 0.875, \
                \"test_crop_pct\": 0.95, \"crop_mode\": \"squash\"}";
    let sides = |config: &str, size| {
        let preprocess = Preprocess::from_timm_config(config, size).unwrap().unwrap();
        (preprocess.resize, preprocess.crop, preprocess.crop_mode)
    };
    assert_eq!(sides(both, CardSize::Test), (303, (288, 288), CropMode::Squash));
    assert_eq!(sides(both, CardSize::Train), (256, (224, 224), CropMode::Squash));
    // Each falls back on its own.
    let size = "{\"test_input_size\": [3, 256, 256], \"crop_pct\": 0.8, \"test_crop_pct\": null}";
    assert_eq!(sides(size, CardSize::Test), (320, (256, 256), CropMode::Center));
    let pct = "{\"input_size\": [3, 240, 240], \"test_input_size\": null, \"test_crop_pct\": 1.0}";
    assert_eq!(sides(pct, CardSize::Test), (240, (240, 240), CropMode::Center));
    assert_eq!(sides(pct, CardSize::Train).0, 274);
    // What there was before is hashed as before.
    let identity = Preprocess::imagenet().identity();
    assert_eq!(identity, "resize 256 bilinear, crop 224 224, mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]");
    assert_ne!(Preprocess { crop_mode: CropMode::Squash, ..Preprocess::imagenet() }.identity(), identity);
}

#[test]
fn centre_crops_begin_where_pythons_round_says() {
    assert_eq!([0, 1, 2, 3, 4, 5, 7].map(half_to_even), [0, 0, 1, 2, 2, 2, 4]);
}
