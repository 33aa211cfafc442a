//! Folders of generated images.

use super::*;
use candle_core::DType;
use std::path::PathBuf;
use tempfile::TempDir;

/// A PNG file of one colour.
pub(super) fn png_of(colour: [u8; 3], (height, width): (u32, u32)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&colour.repeat((height * width) as usize)).unwrap();
    writer.finish().unwrap();
    file
}

/// A folder of `classes` with three training and two test images each; red tells classes apart, green images.
struct Folder(TempDir);

impl Folder {
    fn new(classes: &[&str]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (label, class) in classes.iter().enumerate() {
            for (split, images) in [("train", 3), ("val", 2)] {
                for image in 0..images {
                    let file = png_of([20 * label as u8, 50 * image, 200], (20 + 3 * u32::from(image), 30));
                    folder.write(&format!("{split}/{class}/{image}.JPEG"), &file);
                }
            }
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), content).unwrap();
    }

    fn load(&self, dataset: &str, corrupt: Corrupt) -> Result<Data> {
        // 16 pixels instead of 224.
        let config = "{\"input_size\": [3, 16, 16], \"crop_pct\": 0.8, \"interpolation\": \"bilinear\"}";
        let data = format!("folder:{}", self.0.path().display());
        let request = Request { data: Some(&data), config: Some(config), corrupt, ..Request::default() };
        find(dataset).unwrap().load(&request, &Device::Cpu)
    }

    fn error(&self, dataset: &str) -> String {
        self.load(dataset, Corrupt::Error).unwrap_err().to_string()
    }
}

const CLASSES: [&str; 3] = ["n02", "n01", "n10"];

/// Red and green of each image, which is of one colour, as levels.
fn colours(split: &Split) -> Vec<(u32, u32)> {
    let normalisation = Preprocess::imagenet();
    let means = split.images.mean(3).unwrap().mean(2).unwrap().to_vec2::<f32>().unwrap();
    let level = |image: &[f32], channel: usize| {
        let level = normalisation.mean[channel] + normalisation.std[channel] * f64::from(image[channel]);
        (255.0 * level).round() as u32
    };
    means.iter().map(|image| (level(image, 0), level(image, 1))).collect()
}

#[test]
fn classes_are_numbered_in_the_order_of_their_names() {
    let folder = Folder::new(&CLASSES);
    for litter in ["val/.hidden/x.png", "val/n01/.DS_Store", "val/n01/._0.JPEG", "val/n01/Thumbs.db", "val/notes.txt"] {
        folder.write(litter, b"no image");
    }
    let data = folder.load("image-folder", Corrupt::Error).unwrap();
    assert_eq!((data.pool.len(), data.test.len(), data.test.size()), (9, 6, (3, 16, 16)));
    let test = all(&data.test);
    assert_eq!(test.labels, [0, 0, 1, 1, 2, 2]);
    // n01 was written second, n02 first.
    assert_eq!(colours(&test), [(20, 0), (20, 50), (0, 0), (0, 50), (40, 0), (40, 50)]);
    assert_eq!((test.images.dims(), test.images.dtype()), (&[6, 3, 16, 16][..], DType::F32));
    data.check_fit("net", (3, 3)).unwrap();
    assert!(data.check_fit("net", (3, 1000)).unwrap_err().to_string().contains("the data have 3"));
}

/// A GIF file of 30 x 20 pixels of one colour.
fn gif_of([red, green, blue]: [u8; 3]) -> Vec<u8> {
    let image = image::RgbImage::from_pixel(30, 20, image::Rgb([red, green, blue]));
    let mut file = std::io::Cursor::new(Vec::new());
    image::DynamicImage::from(image).write_to(&mut file, image::ImageFormat::Gif).unwrap();
    file.into_inner()
}

#[test]
fn images_of_every_format_are_read_whatever_they_are_called() {
    let folder = Folder::new(&CLASSES);
    folder.write("val/n01/2.GIF", &gif_of([0, 100, 200]));
    folder.write("val/n01/3", &gif_of([0, 150, 200]));
    folder.write("val/n01/4.txt", &png_of([0, 200, 200], (20, 30)));
    let data = folder.load("image-folder", Corrupt::Error).unwrap();
    let test = all(&data.test);
    assert_eq!(test.labels, [0, 0, 0, 0, 0, 1, 1, 2, 2]);
    assert_eq!(colours(&test)[..5], [(20, 0), (20, 50), (0, 100), (0, 150), (0, 200)]);
}

#[test]
fn what_would_be_left_out_of_a_class_is_an_error() {
    for (name, content, problem) in [
        ("val/n01/notes.txt", b"no image".to_vec(), "val/n01/notes.txt: no image that is read here"),
        ("val/n01/0.pnm", b"P6 1 1 255 abc".to_vec(), "0.pnm: no image"),
        ("val/n01/more/0.png", png_of([0; 3], (9, 9)), "val/n01/more: a folder inside a class folder"),
        ("train/n02/deep/er/0.png", png_of([0; 3], (9, 9)), "train/n02/deep: a folder inside a class folder"),
        ("val/0.Png", png_of([0; 3], (9, 9)), "val/0.Png: an image beside the class folders"),
    ] {
        let folder = Folder::new(&CLASSES);
        folder.write(name, &content);
        let error = folder.error("image-folder");
        assert!(error.contains(problem), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn links_to_classes_and_images_are_followed_and_broken_ones_are_errors() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new(&CLASSES);
    std::fs::rename(folder.path("val/n01"), folder.path("elsewhere")).unwrap();
    symlink(folder.path("elsewhere"), folder.path("val/n01")).unwrap();
    symlink(folder.path("elsewhere/0.JPEG"), folder.path("val/n02/9.png")).unwrap();
    let data = folder.load("image-folder", Corrupt::Error).unwrap();
    assert_eq!(all(&data.test).labels, [0, 0, 1, 1, 1, 2, 2]);
    std::fs::remove_file(folder.path("val/n02/9.png")).unwrap();
    symlink(folder.path("gone"), folder.path("val/n02/9")).unwrap();
    assert!(folder.error("image-folder").contains("val/n02/9"));
    std::fs::remove_file(folder.path("val/n02/9")).unwrap();
    std::fs::rename(folder.path("elsewhere"), folder.path("gone")).unwrap();
    assert!(folder.error("image-folder").contains("val/n01"));
}

#[cfg(target_os = "linux")]
#[test]
fn classes_that_differ_in_case_are_two() {
    let folder = Folder::new(&["cat", "Cat"]);
    let data = folder.load("image-folder", Corrupt::Error).unwrap();
    let test = all(&data.test);
    // Upper case sorts first; "Cat" was written second.
    assert_eq!((test.labels.clone(), colours(&test)[0]), (vec![0, 0, 1, 1], (20, 0)));
}

#[test]
fn a_sample_is_drawn_at_random_for_every_seed_and_recorded() {
    let folder = Folder::new(&CLASSES);
    let data = folder.load("image-folder", Corrupt::Error).unwrap();
    let samples = [0, 1, 2].map(|seed| data.sample(5, seed).unwrap());
    // The pool is sorted by class: its beginning would be no sample of it, for seed 0 neither.
    assert!(samples.iter().all(|sample| sample.indices != [0, 1, 2, 3, 4]));
    assert_ne!(samples[0].indices, samples[1].indices);
    assert_ne!(samples[0].sha256, samples[1].sha256);
}

#[test]
fn hashes_cover_what_a_run_sees_and_not_where_it_lies() {
    let folders = [Folder::new(&CLASSES), Folder::new(&CLASSES)];
    let hashes = |folder: &Folder| {
        let data = folder.load("image-folder", Corrupt::Error).unwrap();
        [data.sample(9, 0).unwrap().sha256, data.test.sha256]
    };
    assert_eq!(hashes(&folders[0]), hashes(&folders[1]));
    // Another content of the same size.
    let mut altered = std::fs::read(folders[1].path("train/n01/0.JPEG")).unwrap();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    folders[1].write("train/n01/0.JPEG", &altered);
    let [calib, test] = hashes(&folders[1]);
    assert_ne!(calib, hashes(&folders[0])[0]);
    assert_eq!(test, hashes(&folders[0])[1]);
    // A test image of another content, and two that changed places, of the same size.
    let swapped = Folder::new(&CLASSES);
    let [first, second] = ["val/n01/0.JPEG", "val/n01/1.JPEG"].map(|name| std::fs::read(swapped.path(name)).unwrap());
    swapped.write("val/n01/0.JPEG", &second);
    swapped.write("val/n01/1.JPEG", &first);
    assert_ne!(hashes(&swapped)[1], test);
    folders[1].write("val/n01/2.JPEG", &altered);
    assert_ne!(hashes(&folders[1])[1], test);
    // The preprocessing makes other images of the same files.
    let data = format!("folder:{}", folders[0].0.path().display());
    let request = Request { data: Some(&data), ..Request::default() };
    let other = find("image-folder").unwrap().load(&request, &Device::Cpu).unwrap();
    assert_ne!(other.test.sha256, hashes(&folders[0])[1]);
}

#[test]
fn a_corrupt_image_is_an_error_with_its_path_or_skipped_and_counted() {
    let folder = Folder::new(&CLASSES);
    let truncated = &png_of([1, 2, 3], (20, 30))[..40];
    folder.write("val/n02/0.JPEG", truncated);
    folder.write("train/n02/1.JPEG", b"");
    let strict = folder.load("image-folder", Corrupt::Error).unwrap();
    let error = strict.test.batches(2).find_map(Result::err).unwrap().to_string();
    for part in ["val/n02/0.JPEG", "truncated", "corrupt = \"skip\""] {
        assert!(error.contains(part), "{error}");
    }
    let error = strict.calibration(9, 0).unwrap_err().to_string();
    assert!(error.contains("train/n02/1.JPEG") && error.contains("empty"), "{error}");

    let lenient = folder.load("image-folder", Corrupt::Skip).unwrap();
    let batches: Vec<Batch> = lenient.test.batches(2).map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(|batch| batch.labels.len()).collect::<Vec<_>>(), [2, 1, 2]);
    assert_eq!(batches.iter().map(|batch| batch.skipped.len()).collect::<Vec<_>>(), [0, 1, 0]);
    assert!(batches[1].skipped[0].contains("val/n02/0.JPEG"));
    // Another image takes the place of one that cannot be read.
    let sample = lenient.sample(8, 0).unwrap();
    assert_eq!((sample.indices.len(), sample.indices.contains(&4)), (8, false));
    assert!(sample.skipped.len() <= 1);
    assert_eq!(lenient.materialise(&sample).unwrap().labels.len(), 8);
    let error = lenient.sample(9, 0).unwrap_err().to_string();
    assert!(error.contains("only 8 of 9") && error.contains("train/n02/1.JPEG"), "{error}");
}

#[test]
fn folders_that_are_not_complete_are_refused_before_any_image_is_read() {
    let folder = Folder::new(&CLASSES);
    let error = folder.error("imagenet");
    assert!(error.contains("3 classes, but imagenet has 1000"), "{error}");
    std::fs::remove_file(folder.path("train/n10/0.JPEG")).unwrap();
    std::fs::remove_file(folder.path("train/n10/1.JPEG")).unwrap();
    std::fs::remove_file(folder.path("train/n10/2.JPEG")).unwrap();
    let error = folder.error("image-folder");
    assert!(error.contains("train/n10: a class folder without images"), "{error}");
    std::fs::remove_dir(folder.path("train/n10")).unwrap();
    let error = folder.error("image-folder");
    assert!(error.contains("train/n10"), "{error}");
    folder.write("train/n10/0.png", &png_of([0; 3], (4, 4)));
    folder.write("train/n11/0.png", &png_of([0; 3], (4, 4)));
    let error = folder.error("image-folder");
    assert!(error.contains("train/n11: the other split has no such class"), "{error}");
    std::fs::remove_dir_all(folder.path("val")).unwrap();
    let error = folder.error("image-folder");
    assert!(error.contains("val: there is no such folder"), "{error}");
    std::fs::create_dir(folder.path("val")).unwrap();
    assert!(folder.error("image-folder").contains("val: it holds no class folders"));
}

#[test]
fn a_set_is_refused_in_a_format_that_it_does_not_have() {
    for (dataset, data) in [("imagenet", "binary:x"), ("cifar-10", "idx:x"), ("mnist", "embedded")] {
        let request = Request { data: Some(data), ..Request::default() };
        let error = find(dataset).unwrap().load(&request, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(&format!("{dataset} is not read from")), "{error}");
    }
    let grey = Request { config: Some("{\"crop_pct\": 1.0}"), ..Request::default() };
    let error = find("fashion-mnist").unwrap().load(&grey, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("3 channels, but fashion-mnist has 1"), "{error}");
}
