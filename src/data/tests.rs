use super::*;
use candle_core::Tensor;

mod folders;
mod parquet;

fn fashion_mnist() -> Data {
    find("fashion-mnist").unwrap().load(&Request::default(), &Device::Cpu).unwrap()
}

/// Every image of `set`.
fn all(set: &ImageSet) -> Split {
    set.first(set.len()).unwrap()
}

#[test]
fn fashion_mnist_is_complete_and_normalised() {
    let data = fashion_mnist();
    let (pool, test) = (all(&data.pool), all(&data.test));
    assert_eq!(pool.images.dims(), [find("fashion-mnist").unwrap().embedded_pool().unwrap(), 1, 28, 28]);
    assert_eq!(test.images.dims(), [10_000, 1, 28, 28]);
    let mean = pool.images.mean_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(mean.abs() < 0.02, "{mean}");
    // The first test image is an ankle boot, the first of the pool is training image 18597.
    assert_eq!((test.labels[0], pool.labels[..4].to_vec()), (9, vec![2, 7, 6, 0]));
    for class in 0..10 {
        assert_eq!(test.labels.iter().filter(|label| **label == class).count(), 1000);
    }
}

/// Bits of each image, which tell images apart and order them.
fn rows(images: &Tensor) -> Vec<Vec<u32>> {
    let rows = images.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
    rows.into_iter().map(|row| row.into_iter().map(f32::to_bits).collect()).collect()
}

#[test]
fn seed_0_keeps_the_order_of_the_pool_and_other_seeds_permute_it() {
    let data = fashion_mnist();
    let pool = data.pool.len();
    let [zero, one, two] = [0, 1, 2].map(|seed| data.calibration(pool, seed).unwrap());
    let ordered = all(&data.pool);
    assert_eq!((rows(&zero.images), &zero.labels), (rows(&ordered.images), &ordered.labels));
    assert!(zero.sha256 != one.sha256 && one.sha256 != two.sha256);
    // Images keep their labels, none is lost or drawn twice.
    let sorted = |split: &Split| {
        let mut pairs: Vec<_> = rows(&split.images).into_iter().zip(split.labels.clone()).collect();
        pairs.sort_unstable();
        pairs
    };
    for permuted in [&one, &two] {
        assert_ne!(permuted.labels, zero.labels);
        assert_eq!(sorted(permuted), sorted(&zero));
    }
}

#[test]
fn a_smaller_sample_is_the_beginning_of_a_larger_one() {
    let data = fashion_mnist();
    for seed in [0, 1] {
        let [small, large] = [255, 256].map(|n| data.calibration(n, seed).unwrap());
        assert_eq!(small.images.dims(), [255, 1, 28, 28]);
        assert_eq!(
            (rows(&small.images), &small.labels[..]),
            (rows(&large.images)[..255].to_vec(), &large.labels[..255])
        );
        assert_ne!(small.sha256, large.sha256);
        assert_eq!(small.sha256, data.calibration(255, seed).unwrap().sha256);
    }
}

#[test]
fn the_hash_of_a_sample_covers_the_images_of_the_pool() {
    let data = fashion_mnist();
    let other = Data { pool: data.test.clone(), ..data.clone() };
    assert_ne!(data.calibration(16, 0).unwrap().sha256, other.calibration(16, 0).unwrap().sha256);
}

#[test]
fn a_sample_of_no_image_or_of_more_than_there_are_is_refused() {
    let data = fashion_mnist();
    for n in [0, 4097] {
        let error = data.calibration(n, 0).unwrap_err().to_string();
        assert!(error.contains(&format!("calib-images = {n}: must be 1 to 4096")), "{error}");
    }
}

#[test]
fn grey_levels_are_normalised_and_labels_kept() {
    let levels = (0..3 * 784).map(|i| i as u8).collect();
    let stored = InMemory { path: "x".into(), height: 28, width: 28, channels: 1, levels, labels: vec![0, 1, 2] };
    let preprocess = (find("fashion-mnist").unwrap().preprocess)();
    let set = ImageSet::new(ImageSource::Memory(stored), String::new(), preprocess, true, Corrupt::Error, &Device::Cpu);
    let split = all(&set);
    assert_eq!((split.images.dims(), split.labels), (&[3, 1, 28, 28][..], vec![0, 1, 2]));
    let images = split.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    // Black, white, and the first pixel of the second image (784 mod 256 = 16).
    for (pixel, grey) in [(0, 0.0f64), (255, 255.0), (784, 16.0)] {
        let expected = (grey / 255.0 - 0.286) / 0.353;
        assert!((f64::from(images[pixel]) - expected).abs() < 1e-6, "{pixel}");
    }
}

#[test]
fn data_sets_in_the_format_of_mnist_differ_in_their_normalisation_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, header: &[u8], content: &[u8]| {
        std::fs::write(folder.path().join(name), [header, content].concat()).unwrap();
    };
    for name in ["train", "t10k"] {
        file(&format!("{name}-images-idx3-ubyte"), &[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28], &[255; 784]);
        file(&format!("{name}-labels-idx1-ubyte"), &[0, 0, 8, 1, 0, 0, 0, 1], &[9]);
    }
    let location = format!("idx:{}", folder.path().display());
    for (name, white) in [("mnist", 2.8215), ("kmnist", 2.3204), ("fashion-mnist", 2.0227)] {
        let request = Request { data: Some(&location), ..Request::default() };
        let split = all(&find(name).unwrap().load(&request, &Device::Cpu).unwrap().test);
        let pixel = split.images.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((pixel - white).abs() < 1e-3 && split.labels == [9], "{name}: {pixel}");
    }
}

#[test]
fn batches_are_the_images_in_order_however_large_and_may_be_left() {
    let set = fashion_mnist().test.truncated(1000);
    let expected = all(&set);
    for size in [1000, 300, 7] {
        let batches: Vec<Batch> = set.batches(size).map(Result::unwrap).collect();
        assert_eq!(batches.len(), 1000usize.div_ceil(size));
        let labels: Vec<u32> = batches.iter().flat_map(|batch| batch.labels.clone()).collect();
        let images: Vec<Tensor> = batches.into_iter().map(|batch| batch.images.unwrap()).collect();
        assert_eq!(labels, expected.labels);
        assert_eq!(rows(&Tensor::cat(&images, 0).unwrap()), rows(&expected.images));
    }
    // Dropped early: its thread must not wait for ever for somebody to take the rest.
    assert!(set.batches(1).next().unwrap().is_ok());
}
