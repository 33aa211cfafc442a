use super::*;
use crate::disk::sha256;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// Hash, height and width of what Pillow makes of a file.
type Expected = (String, [usize; 2]);

/// Files of every kind by name, and what Pillow makes of those that it reads (`scripts/make_image_golden.py`).
fn golden() -> BTreeMap<String, (Vec<u8>, Option<Expected>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/images.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let bytes = |tensor: &Tensor| tensor.to_vec1::<u8>().unwrap();
    let files = tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("file/")?, tensor)));
    let expected = |name: &str| {
        let hash = bytes(tensors.get(&format!("sha256/{name}"))?);
        let size = tensors[&format!("size/{name}")].to_vec1::<u32>().unwrap();
        Some((hash.iter().map(|byte| format!("{byte:02x}")).collect(), [size[0] as usize, size[1] as usize]))
    };
    files.map(|(name, file)| (name.to_string(), (bytes(file), expected(name)))).collect()
}

#[test]
fn files_of_every_kind_have_pillows_pixels() {
    let golden = golden();
    assert!(golden.len() > 200);
    let mut wrong = Vec::new();
    for (name, (file, expected)) in &golden {
        let refused = REFUSED.iter().find(|(refused, _)| refused == name);
        match (decode(file, 3), expected, refused) {
            (Err(problem), _, Some((_, part))) if problem.contains(part) => {}
            (Err(_), None, None) => {}
            (Ok(pixels), Some((hash, [height, width])), None)
                if (pixels.height, pixels.width, pixels.channels) == (*height, *width, 3)
                    && sha256(&[&pixels.data]) == *hash => {}
            (outcome, ..) => wrong.push(format!("{name}: {:?}", outcome.map(|pixels| (pixels.height, pixels.width)))),
        }
    }
    assert!(wrong.is_empty(), "{} files: {wrong:#?}", wrong.len());
}

/// Files that are refused with a reason, whatever Pillow does.
const REFUSED: &[(&str, &str)] = &[
    ("jpeg/12-bit", "precision 12"),
    ("jpeg/half", "a truncated JPEG: it ends before the last row"),
    ("jpeg/header-alone", "a truncated JPEG"),
    ("jpeg/no-height", "Empty JPEG image"),
    ("jpeg/progressive-end-missing", "a truncated JPEG"),
    ("jpeg/too-large", "65280 x 65280 pixels: more than 178956970"),
    ("jpeg/two-components", "a JPEG of 2 components: 1, 3 and 4 are read"),
    ("large.bmp", "60000 x 60000 pixels: more than 178956970"),
    // Kinds of TIFF that the `image` crate does not know, or gives other levels for.
    ("cmyk.tiff", "a TIFF of inks (CMYK)"),
    ("inks.tiff", "a TIFF of inks (CMYK)"),
    ("jpeg.tiff", "a TIFF that holds JPEG"),
    ("multiplied.tiff", "multiplied by alpha"),
    ("rgb-16.tiff", "a TIFF of 48 bits for a pixel"),
    ("f.tiff", "unusual kind"),
    ("i.tiff", "unusual kind"),
    ("la.tiff", "unusual kind"),
    ("lab.tiff", "unusual kind"),
    ("lzma.tiff", "unusual kind"),
    ("p.tiff", "unusual kind"),
    ("ycbcr.tiff", "unusual kind"),
    ("zstd.tiff", "unusual kind"),
];

#[test]
fn luma_is_that_of_the_rgb_pixels() {
    for (name, (file, _)) in golden().iter().filter(|(name, _)| name.contains("2x2,1x1,1x1")) {
        let (rgb, luma) = (decode(file, 3).unwrap(), decode(file, 1).unwrap());
        assert_eq!(rgb.with_channels(1), luma, "{name}");
    }
}

#[test]
fn the_beginning_of_a_file_is_no_image_and_never_panics() {
    for (name, (file, _)) in golden() {
        for kept in [0, 1, 2, 4, 11, 20, 40, file.len() / 3, file.len() / 2] {
            assert!(decode(&file[..kept.min(file.len() / 2)], 3).is_err(), "{name} cut to {kept} of {}", file.len());
        }
    }
}

#[test]
fn formats_are_told_by_their_content() {
    for (name, (file, _)) in golden() {
        let expected = match name.rsplit_once('.').map_or("jpeg", |(_, ending)| ending) {
            "png" => Format::Png,
            "bmp" => Format::Bmp,
            "gif" => Format::Gif,
            "tiff" => Format::Tiff,
            "webp" => Format::WebP,
            _ => Format::Jpeg,
        };
        assert_eq!(Format::of(&file[..Format::TELLING]), Some(expected), "{name}");
    }
    for text in [&b"BM, a text about something"[..], b"II", b"RIFF....WAVE", b"GIF", b""] {
        assert_eq!(Format::of(text), None);
    }
    assert_eq!(decode(b"", 3).unwrap_err(), "empty");
    assert_eq!(decode(b"notes", 3).unwrap_err(), format!("no image that is read here ({} are)", Format::NAMES));
}

#[test]
fn a_file_that_cannot_hold_its_pixels_is_refused_by_its_header() {
    let mut file = Vec::new();
    drop(::png::Encoder::new(&mut file, 13_000, 13_000).write_header().unwrap());
    let problem = decode(&file, 3).unwrap_err();
    assert_eq!(problem, format!("13000 x 13000 pixels in {} bytes, which cannot hold an image of them", file.len()));
}
