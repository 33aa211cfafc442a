//! The IDX format of MNIST and Fashion-MNIST: unsigned bytes with their dimensions.
//!
//! (`candle-datasets` reads it too, but flattens rows and columns, believes any size a header states, takes no gzipped
//! files, and names no file in its errors. It serves as a peer in tests.)

use super::item::InMemory;
use crate::disk::foreign::read;
use crate::error::{Error, Result};
use flate2::read::GzDecoder;
use std::io::Read;
use std::path::Path;

/// Height and width of the images of MNIST and of what took its place, in pixels.
pub const SIZE: [usize; 2] = [28, 28];
const CLASSES: u8 = 10;
/// Bytes of the largest file: 300,000 images, where EMNIST's digits, the most of this kind, are 280,000.
pub const LARGEST: u64 = 300_000 * (SIZE[0] * SIZE[1]) as u64;

/// A file's path, for messages, and its content.
pub type Named<'a> = (&'a str, &'a [u8]);

/// Dimensions and content of an IDX file of unsigned bytes.
#[derive(Debug)]
pub struct Idx<'a> {
    pub dims: Vec<usize>,
    pub content: &'a [u8],
}

/// Parses `bytes`, which must have `rank` dimensions and end where they say; `path` is for messages.
pub fn parse<'a>(path: &str, bytes: &'a [u8], rank: usize) -> Result<Idx<'a>> {
    let header = 4 + 4 * rank;
    if bytes.len() < header || bytes[..4] != [0, 0, 8, rank as u8] {
        return Err(Error::content(path, format!("not an IDX file of bytes with {rank} dimensions")));
    }
    let dims: Vec<usize> = bytes[4..header]
        .chunks_exact(4)
        .map(|dim| u32::from_be_bytes([dim[0], dim[1], dim[2], dim[3]]) as usize)
        .collect();
    let expected = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    let content = &bytes[header..];
    match expected {
        Some(expected) if expected == content.len() => Ok(Idx { dims, content }),
        _ => Err(Error::content(
            path,
            format!("{} bytes after the header, but dimensions {dims:?}: truncated or altered", content.len()),
        )),
    }
}

/// The images of one IDX file with the labels of another.
///
/// Errors: files that are not IDX, images of another size, another number of labels than of images, a label above 9.
pub fn decode((image_path, images): Named, (label_path, labels): Named) -> Result<InMemory> {
    let (pixels, classes) = (parse(image_path, images, 3)?, parse(label_path, labels, 1)?);
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
    Ok(InMemory {
        path: image_path.to_string(),
        height: SIZE[0],
        width: SIZE[1],
        channels: 1,
        levels: pixels.content.to_vec(),
        labels: classes.content.iter().map(|&label| u32::from(label)).collect(),
    })
}

/// Training and test images from MNIST's four files in `folder`, gzipped or not.
pub fn folder(folder: &Path) -> Result<(InMemory, InMemory)> {
    let split = |name: &str| {
        let [images, labels] = ["images-idx3", "labels-idx1"].map(|kind| file(folder, &format!("{name}-{kind}-ubyte")));
        let ((image_path, images), (label_path, labels)) = (images?, labels?);
        decode((&image_path, &images), (&label_path, &labels))
    };
    Ok((split("train")?, split("t10k")?))
}

/// Path and content of `name` or `name.gz` in `folder`.
fn file(folder: &Path, name: &str) -> Result<(String, Vec<u8>)> {
    let (plain, zipped) = (folder.join(name), folder.join(format!("{name}.gz")));
    if plain.exists() || !zipped.exists() {
        return Ok((plain.display().to_string(), read("cannot read", &plain, LARGEST)?));
    }
    let path = zipped.display().to_string();
    let content = unzip(&path, &read("cannot read", &zipped, LARGEST)?, LARGEST)?;
    Ok((path, content))
}

/// The content of a gzip archive; `path` is for messages. Errors: more than `most` bytes of it.
pub fn unzip(path: &str, bytes: &[u8], most: u64) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    GzDecoder::new(bytes)
        .take(most + 1)
        .read_to_end(&mut content)
        .map_err(|error| Error::content(path, format!("cannot unzip: {error}")))?;
    match content.len() as u64 > most {
        true => Err(Error::content(path, format!("unzipped it has more than {most} bytes"))),
        false => Ok(content),
    }
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
    fn files_that_do_not_fit_are_refused_with_the_path_of_the_wrong_one() {
        let (images, labels) = (idx_file(&[12, 28, 28]), idx_file(&[10]));
        for (images, labels, problem) in [
            (&images, &labels, "labels: 10 labels for 12 images"),
            (&images, &idx_file(&[12]), "labels: label 10 of image 10 is outside 0 to 9"),
            (&idx_file(&[10, 28, 27]), &labels, "images: images of [28, 27] pixels, not [28, 28]"),
            (&labels, &labels, "images: not an IDX file"),
            (&images, &images, "labels: not an IDX file"),
        ] {
            let error = decode(("images", images), ("labels", labels)).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{error}");
        }
    }

    #[test]
    fn a_folder_of_files_gzipped_or_not_is_read() {
        let directory = tempfile::tempdir().unwrap();
        for (name, n) in [("train", 7), ("t10k", 3)] {
            let (images, labels) = (idx_file(&[n, 28, 28]), idx_file(&[n]));
            std::fs::write(directory.path().join(format!("{name}-images-idx3-ubyte")), images).unwrap();
            let zipped = std::fs::File::create(directory.path().join(format!("{name}-labels-idx1-ubyte.gz"))).unwrap();
            let mut zipped = flate2::write::GzEncoder::new(zipped, flate2::Compression::fast());
            std::io::Write::write_all(&mut zipped, &labels).unwrap();
            zipped.finish().unwrap();
        }
        let (train, test) = folder(directory.path()).unwrap();
        assert_eq!((train.labels, test.labels), (vec![0, 1, 2, 3, 4, 5, 6], vec![0, 1, 2]));
        assert_eq!((train.levels.len(), test.levels[784]), (7 * 784, 16));
        std::fs::remove_file(directory.path().join("t10k-labels-idx1-ubyte.gz")).unwrap();
        let error = folder(directory.path()).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains("t10k-labels-idx1-ubyte"), "{error}");
    }

    #[test]
    fn a_folder_of_files_is_read_as_candle_datasets_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: Vec<u8>| std::fs::write(directory.path().join(name), content).unwrap();
        for (name, n) in [("train", 7), ("t10k", 3)] {
            write(&format!("{name}-images-idx3-ubyte"), idx_file(&[n, 28, 28]));
            write(&format!("{name}-labels-idx1-ubyte"), idx_file(&[n]));
        }
        let (train, test) = folder(directory.path()).unwrap();
        let theirs = candle_datasets::vision::mnist::load_dir(directory.path()).unwrap();
        for (ours, images, labels) in
            [(&train, theirs.train_images, theirs.train_labels), (&test, theirs.test_images, theirs.test_labels)]
        {
            let images = images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(ours.levels, images.iter().map(|grey| (255.0 * grey).round() as u8).collect::<Vec<u8>>());
            let labels: Vec<u32> = labels.to_vec1::<u8>().unwrap().into_iter().map(u32::from).collect();
            assert_eq!(ours.labels, labels);
        }
    }

    #[test]
    fn an_archive_that_would_fill_the_memory_is_refused() {
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut zipped, &vec![0; 1 << 20]).unwrap();
        let zipped = zipped.finish().unwrap();
        assert_eq!(unzip("x.gz", &zipped, 1 << 20).unwrap().len(), 1 << 20);
        let error = unzip("x.gz", &zipped, (1 << 20) - 1).unwrap_err().to_string();
        assert_eq!(error, "x.gz: unzipped it has more than 1048575 bytes");
    }

    #[test]
    fn reads_what_it_should_and_refuses_the_rest() {
        let good = [0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9];
        let idx = parse("x", &good, 1).unwrap();
        assert_eq!((idx.dims, idx.content), (vec![3], &[7u8, 8, 9][..]));
        for bad in [&good[..10], &[&good[..], &[1]].concat(), &good[..5], &[], &[0, 0, 9, 1, 0, 0, 0, 0]] {
            let error = parse("some/path", bad, 1).unwrap_err().to_string();
            assert!(error.starts_with("some/path"), "{error}");
        }
        let huge = [0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(parse("x", &huge, 3).is_err());
    }
}
