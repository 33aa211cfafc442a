//! Data sets: a calibration pool and a test split, as normalised images.

pub mod augment;
mod fashion_mnist;
mod idx;

use crate::assets::embedded::sha256;
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};
use candle_core::{Device, Tensor};

/// Images with their labels.
#[derive(Clone, Debug)]
pub struct Split {
    /// `(N, C, H, W)`, f32, normalised as the network expects.
    pub images: Tensor,
    /// Class of each image.
    pub labels: Vec<u32>,
    /// SHA-256 of what determines the split, in lower-case hexadecimal.
    pub sha256: String,
}

/// A data set ready for use.
#[derive(Clone, Debug)]
pub struct Data {
    /// Training images that calibration samples are drawn from.
    pub pool: Split,
    pub test: Split,
}

impl Data {
    /// Calibration sample of `n` images: the first `n` of the pool for seed 0, of a permutation of it for other seeds.
    ///
    /// Its SHA-256 covers the pool and the chosen indices.  Errors: `n` is 0 or larger than the pool.
    pub fn calibration(&self, n: usize, seed: u64) -> Result<Split> {
        let pool = self.pool.labels.len();
        if n == 0 || n > pool {
            return Err(Error::Usage(format!("calib-images = {n}: must be 1 to {pool}, the size of the pool")));
        }
        let mut indices: Vec<u32> = match seed {
            0 => (0..pool as u32).collect(),
            _ => Stream::new(seed).purpose(Purpose::Calibration).permutation(pool),
        };
        indices.truncate(n);
        let bytes: Vec<u8> = indices.iter().flat_map(|index| index.to_le_bytes()).collect();
        Ok(Split {
            labels: indices.iter().map(|&index| self.pool.labels[index as usize]).collect(),
            sha256: sha256(&[self.pool.sha256.as_bytes(), &bytes]),
            images: self.pool.images.index_select(&Tensor::from_vec(indices, n, self.pool.images.device())?, 0)?,
        })
    }
}

/// One data set.
pub struct DatasetSpec {
    /// As written in a grid.
    pub name: &'static str,
    /// As printed in captions.
    pub title: &'static str,
    /// Number of images calibration samples are drawn from.
    pub pool_images: usize,
    /// Mean and standard deviation that its images are normalised with, in grey levels / 255.
    pub mean: f64,
    pub std: f64,
    pub load: fn(&Device) -> Result<Data>,
}

/// Every known data set.
pub const DATASETS: &[DatasetSpec] = &[DatasetSpec {
    name: "fashion-mnist",
    title: "Fashion-MNIST",
    pool_images: 4096,
    mean: fashion_mnist::MEAN,
    std: fashion_mnist::STD,
    load: fashion_mnist::load,
}];

/// The data set called `name`.
pub fn find(name: &str) -> Option<&'static DatasetSpec> {
    DATASETS.iter().find(|dataset| dataset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fashion_mnist_is_complete_and_normalised() {
        let data = fashion_mnist::load(&Device::Cpu).unwrap();
        assert_eq!(data.pool.images.dims(), [find("fashion-mnist").unwrap().pool_images, 1, 28, 28]);
        assert_eq!(data.test.images.dims(), [10_000, 1, 28, 28]);
        let mean = data.pool.images.mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(mean.abs() < 0.02, "{mean}");
        // The first test image is an ankle boot, the first of the pool is training image 18597.
        assert_eq!((data.test.labels[0], data.pool.labels[..4].to_vec()), (9, vec![2, 7, 6, 0]));
        for class in 0..10 {
            assert_eq!(data.test.labels.iter().filter(|label| **label == class).count(), 1000);
        }
    }

    /// Bits of each image, which tell images apart and order them.
    fn rows(images: &Tensor) -> Vec<Vec<u32>> {
        let rows = images.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
        rows.into_iter().map(|row| row.into_iter().map(f32::to_bits).collect()).collect()
    }

    #[test]
    fn seed_0_keeps_the_order_of_the_pool_and_other_seeds_permute_it() {
        let data = fashion_mnist::load(&Device::Cpu).unwrap();
        let pool = data.pool.labels.len();
        let [zero, one, two] = [0, 1, 2].map(|seed| data.calibration(pool, seed).unwrap());
        assert_eq!((rows(&zero.images), &zero.labels), (rows(&data.pool.images), &data.pool.labels));
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
        let data = fashion_mnist::load(&Device::Cpu).unwrap();
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
        let data = fashion_mnist::load(&Device::Cpu).unwrap();
        let other = Data { pool: data.test.clone(), ..data.clone() };
        assert_ne!(data.calibration(16, 0).unwrap().sha256, other.calibration(16, 0).unwrap().sha256);
    }

    #[test]
    fn a_sample_of_no_image_or_of_more_than_there_are_is_refused() {
        let data = fashion_mnist::load(&Device::Cpu).unwrap();
        for n in [0, 4097] {
            let error = data.calibration(n, 0).unwrap_err().to_string();
            assert!(error.contains(&format!("calib-images = {n}: must be 1 to 4096")), "{error}");
        }
    }
}
