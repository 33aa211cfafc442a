//! CIFAR-10 and CIFAR-100 in their original binary files: per image its labels, then 3,072 levels `(C, H, W)`.
//!
//! `candle-datasets` reads CIFAR-10's too, with everything as floats several times over (1.3 GB), no path in its errors,
//! and no CIFAR-100, whose records are the same but for a byte: it would stand beside this reader, not in its place. It is
//! the peer of it in tests. Its `cifar::load`, from the Hub's Parquet files, transposes every image.

use super::item::InMemory;
use crate::disk::foreign::read as content;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

const SIDE: usize = 32;
const CHANNELS: usize = 3;
const LEVELS: usize = SIDE * SIDE * CHANNELS;

/// Bytes of the largest file, CIFAR-100's 50,000 training images.
const LARGEST: u64 = 50_000 * (2 + LEVELS) as u64;

/// Statistics of the training images, in levels / 255.
pub(super) const MEAN_10: [f64; 3] = [0.4914, 0.4822, 0.4465];
pub(super) const STD_10: [f64; 3] = [0.2470, 0.2435, 0.2616];
pub(super) const MEAN_100: [f64; 3] = [0.5071, 0.4865, 0.4409];
pub(super) const STD_100: [f64; 3] = [0.2673, 0.2564, 0.2762];

/// What a record of a file is.
#[derive(Clone, Copy)]
struct Format {
    /// Bytes before the levels; the last of them is the class.
    labels: usize,
    classes: u8,
    /// Images per file.
    images: usize,
}

/// Training and test images of CIFAR-10: `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin` in `folder`.
pub(super) fn cifar10(folder: &Path) -> Result<(InMemory, InMemory)> {
    let format = Format { labels: 1, classes: 10, images: 10_000 };
    let train: Vec<PathBuf> = (1..=5).map(|batch| folder.join(format!("data_batch_{batch}.bin"))).collect();
    Ok((read(&train, format)?, read(&[folder.join("test_batch.bin")], format)?))
}

/// Training and test images of CIFAR-100 with their fine labels: `train.bin` and `test.bin` in `folder`.
pub(super) fn cifar100(folder: &Path) -> Result<(InMemory, InMemory)> {
    let format = |images| Format { labels: 2, classes: 100, images };
    Ok((read(&[folder.join("train.bin")], format(50_000))?, read(&[folder.join("test.bin")], format(10_000))?))
}

/// The images of all `files`, one after the other. Errors: another length than the format's; labels out of range.
fn read(files: &[PathBuf], format: Format) -> Result<InMemory> {
    let total = files.len() * format.images;
    let (mut levels, mut labels) = (Vec::with_capacity(total * LEVELS), Vec::with_capacity(total));
    for path in files {
        let record = format.labels + LEVELS;
        let bytes = content("cannot read", path, LARGEST)?;
        if bytes.len() != format.images * record {
            let problem = format!("{} bytes are not {} images of CIFAR-{}", bytes.len(), format.images, format.classes);
            return Err(Error::content(path, problem));
        }
        for (image, record) in bytes.chunks_exact(record).enumerate() {
            let (label, planes) = (record[format.labels - 1], &record[format.labels..]);
            if label >= format.classes {
                let last = format.classes - 1;
                return Err(Error::content(path, format!("label {label} of image {image} is not 0 to {last}")));
            }
            labels.push(u32::from(label));
            levels.extend((0..LEVELS).map(|i| planes[i % CHANNELS * SIDE * SIDE + i / CHANNELS]));
        }
    }
    let path = files.first().map_or(String::new(), |path| path.display().to_string());
    Ok(InMemory { path, height: SIDE, width: SIDE, channels: CHANNELS, levels, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Level `(i + 3 * position) % 256` at each position of image `i`, planes one after the other.
    fn image(i: usize) -> Vec<u8> {
        (0..LEVELS).map(|position| (i + 3 * position) as u8).collect()
    }

    #[test]
    fn images_are_not_turned_and_have_their_fine_label() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.bin");
        let record = |i: usize| [&[19, 90 + i as u8][..], &image(i)].concat();
        std::fs::write(&path, [record(0), record(1)].concat()).unwrap();
        let format = Format { labels: 2, classes: 100, images: 2 };
        let stored = read(&[path.clone(), path.clone()], format).unwrap();
        assert_eq!(stored.labels, [90, 91, 90, 91]);
        for (i, levels) in stored.levels.chunks(LEVELS).enumerate() {
            let planes = image(i % 2);
            for (y, x, channel) in [(0, 0, 0), (0, 1, 0), (1, 0, 2), (31, 30, 1)] {
                assert_eq!(levels[(y * SIDE + x) * CHANNELS + channel], planes[(channel * SIDE + y) * SIDE + x]);
            }
        }
        for (format, problem) in [
            (Format { images: 3, ..format }, "6148 bytes are not 3 images of CIFAR-100"),
            (Format { classes: 91, ..format }, "label 91 of image 1 is not 0 to 90"),
        ] {
            let error = read(std::slice::from_ref(&path), format).unwrap_err().to_string();
            assert!(error.contains("train.bin") && error.contains(problem), "{error}");
        }
        let error = cifar10(folder.path()).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains("data_batch_1.bin"), "{error}");
    }

    #[test]
    fn cifar_10_is_read_as_candle_datasets_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        for (index, name) in
            ["test_batch", "data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]
                .into_iter()
                .enumerate()
        {
            let record = |i: usize| [&[((i + index) % 10) as u8][..], &image(i + index)].concat();
            let content: Vec<u8> = (0..10_000).flat_map(record).collect();
            std::fs::write(folder.path().join(format!("{name}.bin")), content).unwrap();
        }
        let theirs = candle_datasets::vision::cifar::load_dir(folder.path()).unwrap();
        let (train, test) = cifar10(folder.path()).unwrap();
        for (ours, images, labels) in
            [(train, theirs.train_images, theirs.train_labels), (test, theirs.test_images, theirs.test_labels)]
        {
            let labels: Vec<u32> = labels.to_vec1::<u8>().unwrap().into_iter().map(u32::from).collect();
            assert_eq!(ours.labels, labels);
            let images = images.narrow(0, 5000, 100).unwrap().permute((0, 2, 3, 1)).unwrap();
            let images = images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let theirs = images.iter().map(|share| (255.0 * share).round() as u8);
            assert!(ours.levels[5000 * LEVELS..5100 * LEVELS].iter().copied().eq(theirs));
        }
    }
}
