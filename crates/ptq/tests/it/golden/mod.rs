//! Against values computed by the methods' published code (`tests/golden/README.md`).

mod architectures;
mod meta;
mod pd_quant;
mod quantizers;
mod ranges;
mod reconstruction;
mod units;

use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::path::Path;

/// One file of golden values.
pub struct Golden {
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    pub fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(format!("{name}.safetensors"));
        Self { tensors: candle_core::safetensors::load(path, &Device::Cpu).unwrap() }
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("no golden value {name}"))
    }

    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).cloned()
    }

    /// Tensors whose names begin with `prefix`, without it.
    pub fn with_prefix(&self, prefix: &str) -> HashMap<String, Tensor> {
        let named = self.tensors.iter();
        named.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()))).collect()
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        values(&self.tensor(name))
    }

    pub fn scalar(&self, name: &str) -> f64 {
        f64::from(self.values(name)[0])
    }

    /// Row `index` of a mask that has one row per iteration.
    pub fn mask(&self, name: &str, index: usize) -> Vec<u8> {
        self.tensor(name).get(index).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Row `index` of a table of image indices.
    pub fn rows(&self, name: &str, index: usize) -> Vec<u32> {
        let rows: Vec<i64> = self.tensor(name).get(index).unwrap().to_vec1().unwrap();
        rows.into_iter().map(|row| row as u32).collect()
    }
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest absolute difference over the largest expected magnitude.
pub fn relative_error(actual: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let largest = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    let difference = actual.iter().zip(expected).fold(0f32, |max, (a, e)| max.max((a - e).abs()));
    f64::from(difference) / f64::from(largest).max(1e-30)
}

#[track_caller]
pub fn assert_close(what: &str, actual: &[f32], expected: &[f32], tolerance: f64) {
    let error = relative_error(actual, expected);
    assert!(error <= tolerance, "{what}: relative error {error:.2e} > {tolerance:.0e}\n{actual:?}\n{expected:?}");
}
