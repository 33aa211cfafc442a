//! Fashion-MNIST (arXiv 1708.07747) as embedded: 10,000 test images and a pool of 4,096 training images.

use super::idx;
use super::{Data, Split};
use crate::assets::embedded::{self, sha256};
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use flate2::read::GzDecoder;
use std::io::Read;

/// Grey levels / 255 over the training images.
pub const MEAN: f32 = 0.2860;
pub const STD: f32 = 0.3530;
const CLASSES: u8 = 10;

/// Images `(N, 1, 28, 28)`, `(grey / 255 - mean) / std`.
pub fn load(device: &Device) -> Result<Data> {
    Ok(Data { pool: split("pool", device)?, test: split("test", device)? })
}

fn split(name: &str, device: &Device) -> Result<Split> {
    let (image_path, label_path) =
        (format!("fashion-mnist/{name}-images-idx3-ubyte.gz"), format!("fashion-mnist/{name}-labels-idx1-ubyte.gz"));
    let (images, labels) = (unzip(&image_path)?, unzip(&label_path)?);
    let (pixels, classes) = (idx::parse(&image_path, &images, 3)?, idx::parse(&label_path, &labels, 1)?);
    if pixels.dims[0] != classes.dims[0] {
        return Err(Error::content(label_path, format!("{} labels for {} images", classes.dims[0], pixels.dims[0])));
    }
    if let Some(label) = classes.content.iter().find(|label| **label >= CLASSES) {
        return Err(Error::content(label_path, format!("label {label} is outside 0 to {}", CLASSES - 1)));
    }
    let normalised: Vec<f32> = pixels.content.iter().map(|&grey| (f32::from(grey) / 255.0 - MEAN) / STD).collect();
    let shape = (pixels.dims[0], 1, pixels.dims[1], pixels.dims[2]);
    Ok(Split {
        images: Tensor::from_vec(normalised, shape, device)?,
        labels: classes.content.iter().map(|&label| u32::from(label)).collect(),
        sha256: sha256(&[pixels.content, classes.content]),
    })
}

fn unzip(path: &str) -> Result<Vec<u8>> {
    let (bytes, _) = embedded::read(path)?;
    let mut content = Vec::new();
    GzDecoder::new(bytes)
        .read_to_end(&mut content)
        .map_err(|error| Error::content(path, format!("cannot unzip: {error}")))?;
    Ok(content)
}
