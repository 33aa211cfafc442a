//! The parameters of a transform network, by name.

use crate::error::{Error, Result};
use crate::rng::Stream;
use candle_core::{DType, Device, Tensor, Var};
use std::collections::HashMap;

/// Trained parameters, and buffers that training updates by other means, in the order in which they were made.
pub struct Parameters {
    stream: Stream,
    dtype: DType,
    device: Device,
    trained: Vec<(String, Var)>,
    buffers: Vec<(String, Var)>,
}

impl Parameters {
    pub(super) fn new(stream: Stream, dtype: DType, device: &Device) -> Self {
        Self { stream, dtype, device: device.clone(), trained: Vec::new(), buffers: Vec::new() }
    }

    /// Uniform in `[-bound, bound)`.
    pub(super) fn uniform(&mut self, name: String, shape: &[usize], bound: f64) -> Result<Var> {
        let stream = self.stream.named(&name);
        let count = shape.iter().product::<usize>() as u64;
        let values: Vec<f64> = (0..count).map(|i| bound * (2.0 * stream.unit(i) - 1.0)).collect();
        self.trained(name, &Tensor::from_vec(values, shape, &self.device)?.to_dtype(self.dtype)?)
    }

    /// All elements equal to `value`.
    pub(super) fn constant(&mut self, name: String, shape: &[usize], value: f64) -> Result<Var> {
        self.trained(name, &Tensor::full(value, shape, &self.device)?.to_dtype(self.dtype)?)
    }

    /// Starts as `values`.
    pub(super) fn trained(&mut self, name: String, values: &Tensor) -> Result<Var> {
        let var = Var::from_tensor(&values.to_dtype(self.dtype)?)?;
        self.trained.push((name, var.clone()));
        Ok(var)
    }

    /// Not trained; all elements equal to `value`.
    pub(super) fn buffer(&mut self, name: String, shape: &[usize], value: f64) -> Result<Var> {
        let var = Var::from_tensor(&Tensor::full(value, shape, &self.device)?.to_dtype(self.dtype)?)?;
        self.buffers.push((name, var.clone()));
        Ok(var)
    }

    /// The trained parameters.
    pub fn vars(&self) -> impl Iterator<Item = &Var> {
        self.trained.iter().map(|(_, var)| var)
    }

    /// The trained parameter called `name`.
    pub fn var(&self, name: &str) -> Option<&Var> {
        self.trained.iter().find(|(own, _)| own == name).map(|(_, var)| var)
    }

    /// Parameters and buffers by name, copied.
    pub fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let named = self.trained.iter().chain(&self.buffers);
        named.map(|(name, var)| Ok((name.clone(), var.as_detached_tensor().copy()?))).collect()
    }

    /// Takes over `tensors`. Errors: one is missing, or of another shape.
    pub fn load(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for (name, var) in self.trained.iter().chain(&self.buffers) {
            match tensors.get(name) {
                Some(tensor) if tensor.shape() == var.shape() => {
                    var.set(&tensor.to_device(&self.device)?.to_dtype(self.dtype)?)?;
                }
                other => {
                    let problem = format!("{name} is {:?}, not {:?}", other.map(Tensor::dims), var.dims());
                    return Err(Error::Shape { op: "transform network", problem });
                }
            }
        }
        Ok(())
    }
}
