//! Named tensors on their way into a network: hands each out once and remembers every misfit.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};

/// Tensors by name, with the problems met so far.
///
/// Only what no network needs is ignored: BatchNorm's `num_batches_tracked` counters.
pub struct StateDict {
    tensors: BTreeMap<String, Tensor>,
    device: Device,
    problems: Vec<String>,
}

impl StateDict {
    pub fn new(tensors: HashMap<String, Tensor>, device: &Device) -> Self {
        let tensors = tensors.into_iter().filter(|(name, _)| !name.ends_with("num_batches_tracked")).collect();
        Self { tensors, device: device.clone(), problems: Vec::new() }
    }

    /// Removes and returns tensor `name` as f32; a placeholder of `shape` (and a noted problem) if it does not fit.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Tensor {
        let taken = match self.tensors.remove(name) {
            None => Err(format!("missing {name} {shape:?}")),
            Some(tensor) if tensor.dims() != shape => {
                Err(format!("{name} has shape {:?}, not {shape:?}", tensor.dims()))
            }
            Some(tensor) => tensor
                .to_dtype(DType::F32)
                .and_then(|tensor| tensor.to_device(&self.device))
                .map_err(|error| format!("{name}: {error}")),
        };
        taken.unwrap_or_else(|problem| {
            self.problems.push(problem);
            Tensor::from_slice(&[0f32], 1, &Device::Cpu)
                .and_then(|zero| zero.broadcast_as(shape))
                .unwrap_or_else(|_| unreachable!())
        })
    }

    /// Ends the building of `arch`: an error that lists everything missing, misshapen or left over.
    pub fn finish(mut self, arch: &str) -> Result<()> {
        self.problems.extend(self.tensors.keys().map(|name| format!("unexpected {name}")));
        match self.problems.is_empty() {
            true => Ok(()),
            false => Err(Error::Weights { arch: arch.to_string(), problems: self.problems }),
        }
    }
}
