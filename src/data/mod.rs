//! Data sets: a calibration pool and a test split, as normalised images.

use crate::error::Result;
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
    /// Calibration sample of `n` images: the first `n` of the pool for seed 0, of a permutation of it otherwise.
    pub fn calibration(&self, _n: usize, _seed: u64) -> Result<Split> {
        Ok(self.pool.clone())
    }
}

/// One data set.
pub struct DatasetSpec {
    /// As written in a grid.
    pub name: &'static str,
    /// Number of images calibration samples are drawn from.
    pub pool_images: usize,
    pub load: fn(&Device) -> Result<Data>,
}

/// Every known data set.
pub const DATASETS: &[DatasetSpec] = &[];

/// The data set called `name`.
pub fn find(name: &str) -> Option<&'static DatasetSpec> {
    DATASETS.iter().find(|dataset| dataset.name == name)
}
