//! Fashion-MNIST (arXiv 1708.07747) as embedded: 10,000 test images and a pool of 4,096 training images.

use super::idx;
use super::{Data, Split};
use crate::assets::embedded::{self, sha256};
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use flate2::read::GzDecoder;
use std::io::Read;

/// Mean and standard deviation of grey levels / 255 over the training images.
pub const MEAN: f64 = 0.2860;
pub const STD: f64 = 0.3530;
const CLASSES: u8 = 10;
/// Height and width, in pixels.
pub const SIZE: [usize; 2] = [28, 28];

/// A file's path, for messages, and its content.
type Named<'a> = (&'a str, &'a [u8]);

/// Images `(N, 1, 28, 28)`, `(grey / 255 - mean) / std`.
pub fn load(device: &Device) -> Result<Data> {
    Ok(Data { pool: split("pool", device)?, test: split("test", device)? })
}

fn split(name: &str, device: &Device) -> Result<Split> {
    let [images, labels] = ["images-idx3", "labels-idx1"].map(|kind| format!("fashion-mnist/{name}-{kind}-ubyte.gz"));
    decode(
        (&images, &unzip(&images, embedded::read(&images)?.0)?),
        (&labels, &unzip(&labels, embedded::read(&labels)?.0)?),
        device,
    )
}

/// Normalised images and their labels from the content of two IDX files.
///
/// Errors: files that are not IDX, images of another size, another number of labels than of images, a label above 9.
fn decode((image_path, images): Named, (label_path, labels): Named, device: &Device) -> Result<Split> {
    let (pixels, classes) = (idx::parse(image_path, images, 3)?, idx::parse(label_path, labels, 1)?);
    let n = pixels.dims[0];
    if pixels.dims[1..] != SIZE {
        return Err(Error::content(image_path, format!("images of {:?} pixels, not {SIZE:?}", &pixels.dims[1..])));
    }
    if classes.dims[0] != n {
        return Err(Error::content(label_path, format!("{} labels for {n} images", classes.dims[0])));
    }
    if let Some((image, label)) = classes.content.iter().enumerate().find(|(_, label)| **label >= CLASSES) {
        return Err(Error::content(
            label_path,
            format!("label {label} of image {image} is outside 0 to {}", CLASSES - 1),
        ));
    }
    let (mean, std) = (MEAN as f32, STD as f32);
    let normalised: Vec<f32> = pixels.content.iter().map(|&grey| (f32::from(grey) / 255.0 - mean) / std).collect();
    Ok(Split {
        images: Tensor::from_vec(normalised, (n, 1, SIZE[0], SIZE[1]), device)?,
        labels: classes.content.iter().map(|&label| u32::from(label)).collect(),
        sha256: sha256(&[pixels.content, classes.content]),
    })
}

fn unzip(path: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    GzDecoder::new(bytes)
        .read_to_end(&mut content)
        .map_err(|error| Error::content(path, format!("cannot unzip: {error}")))?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IDX file of `dims` whose content counts up.
    fn idx_file(dims: &[u32]) -> Vec<u8> {
        let header = [0, 0, 8, dims.len() as u8].into_iter().chain(dims.iter().flat_map(|dim| dim.to_be_bytes()));
        header.chain((0..dims.iter().product()).map(|i: u32| i as u8)).collect()
    }

    #[test]
    fn grey_levels_are_normalised_and_labels_kept() {
        let split = decode(("images", &idx_file(&[3, 28, 28])), ("labels", &idx_file(&[3])), &Device::Cpu).unwrap();
        assert_eq!((split.images.dims(), split.labels), (&[3, 1, 28, 28][..], vec![0, 1, 2]));
        let images = split.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // Black, white, and the first pixel of the second image (784 mod 256 = 16).
        for (pixel, grey) in [(0, 0.0f64), (255, 255.0), (784, 16.0)] {
            let expected = (grey / 255.0 - 0.286) / 0.353;
            assert!((f64::from(images[pixel]) - expected).abs() < 1e-6, "{pixel}");
        }
    }

    #[test]
    fn files_that_do_not_fit_are_refused_with_the_path_of_the_wrong_one() {
        let (images, labels) = (idx_file(&[12, 28, 28]), idx_file(&[10]));
        for (images, labels, problem) in [
            (&images, &labels, "labels: 10 labels for 12 images"),
            (&images, &idx_file(&[12]), "labels: label 10 of image 10 is outside 0 to 9"),
            (&idx_file(&[10, 28, 27]), &labels, "images: images of [28, 27] pixels, not [28, 28]"),
            (&labels, &labels, "images: not an IDX file"),
            (&images, &images, "labels: not an IDX file"),
        ] {
            let error = decode(("images", images), ("labels", labels), &Device::Cpu).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{error}");
        }
    }

    #[test]
    fn a_truncated_or_altered_archive_is_refused() {
        let path = "fashion-mnist/pool-labels-idx1-ubyte.gz";
        let archive = embedded::read(path).unwrap().0;
        assert_eq!(unzip(path, archive).unwrap().len(), 8 + 4096);
        // Its last eight bytes are a checksum and the length of its content.
        let mut altered = archive.to_vec();
        altered[archive.len() - 6] ^= 1;
        for bad in [&archive[..0], &archive[..100], &archive[..archive.len() - 1], &altered] {
            assert!(unzip(path, bad).unwrap_err().to_string().starts_with(path));
        }
    }
}
