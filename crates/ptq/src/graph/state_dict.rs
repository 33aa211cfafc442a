//! Named tensors on their way into a network: hands each out once and remembers every misfit.

use crate::device_error::DeviceError;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};

/// Tensors by name, with the problems met so far.
///
/// Only what no network needs is ignored: BatchNorm's `num_batches_tracked` counters.
pub struct StateDict {
    tensors: BTreeMap<String, Tensor>,
    /// The name that a tensor goes by here.
    rename: fn(&str) -> String,
    device: Device,
    /// Names and shapes of what was asked for, in order.
    asked: Vec<(String, Vec<usize>)>,
    /// Stands in for a tensor that does not fit; [`StateDict::finish`] lets no network with one of them out.
    placeholder: Tensor,
    problems: Vec<String>,
    /// Of the device, which says nothing about the tensors.
    device_error: Option<candle_core::Error>,
}

impl StateDict {
    /// `rename` gives the name in `tensors` of what is asked for; problems are told by these names.
    pub fn new(tensors: HashMap<String, Tensor>, rename: fn(&str) -> String, device: &Device) -> Result<Self> {
        let tensors = tensors.into_iter().filter(|(name, _)| !name.ends_with("num_batches_tracked")).collect();
        let placeholder = Tensor::new(0f32, &Device::Cpu)?;
        Ok(Self {
            tensors,
            rename,
            device: device.clone(),
            asked: Vec::new(),
            placeholder,
            problems: Vec::new(),
            device_error: None,
        })
    }

    /// Removes and returns tensor `name` as f32; a placeholder (and a noted problem) if it is missing, has another shape
    /// or holds anything but finite floating-point numbers.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Tensor {
        let name = (self.rename)(name);
        self.asked.push((name.clone(), shape.to_vec()));
        let taken = match self.tensors.remove(&name) {
            None => Err(format!("missing {name} {shape:?}")),
            Some(tensor) if tensor.dims() != shape => {
                Err(format!("{name} has shape {:?}, not {shape:?}", tensor.dims()))
            }
            Some(tensor) => match finite_f32(&tensor, &self.device) {
                Err(error) if DeviceError::of(&error.to_string()).is_some() => {
                    self.device_error.get_or_insert(error);
                    Ok(self.placeholder.clone())
                }
                converted => converted.map_err(|problem| format!("{name} {problem}")),
            },
        };
        taken.unwrap_or_else(|problem| {
            self.problems.push(problem);
            self.placeholder.clone()
        })
    }

    /// [`Self::take`] of running variances, of which BatchNorm divides by the root: `variance + eps` that is not positive is a
    /// problem too.
    pub fn take_variances(&mut self, name: &str, channels: usize, eps: f64) -> Tensor {
        let variances = self.take(name, &[channels]);
        match without_root(&variances, eps) {
            Ok(Some((channel, variance))) => {
                let name = (self.rename)(name);
                let problem = format!("{name} is {variance} in channel {channel}, which with eps = {eps} has no root");
                self.problems.push(problem);
                self.placeholder.clone()
            }
            // A placeholder has been noted.
            _ => variances,
        }
    }

    /// Names and shapes of all tensors that were asked for.
    pub fn into_asked(self) -> Vec<(String, Vec<usize>)> {
        self.asked
    }

    /// Size of tensor `name`, not yet taken, in dimension `dim`.
    pub fn size(&self, name: &str, dim: usize) -> Option<usize> {
        self.tensors.get(&(self.rename)(name)).and_then(|tensor| tensor.dims().get(dim).copied())
    }

    /// Ends the building of `arch` from the weights in `origin`: an error that lists everything missing, misshapen,
    /// unusable or left over.
    pub fn finish(mut self, arch: &str, origin: &str) -> Result<()> {
        if let Some(error) = self.device_error {
            return Err(error.into());
        }
        self.problems.extend(self.tensors.keys().map(|name| format!("unexpected {name}")));
        match self.problems.is_empty() {
            true => Ok(()),
            false => {
                Err(Error::Weights { arch: arch.to_string(), origin: origin.to_string(), problems: self.problems })
            }
        }
    }
}

/// The first of `variances`, with its position, that is not positive with `eps` added in f32.
fn without_root(variances: &Tensor, eps: f64) -> Result<Option<(usize, f32)>> {
    let values = variances.flatten_all()?.to_vec1::<f32>()?;
    let is_bad = |(_, variance): &(usize, f32)| *variance + eps as f32 <= 0.0;
    Ok(if variances.rank() == 1 { values.into_iter().enumerate().find(is_bad) } else { None })
}

/// `tensor` as `f32` on `device`. Errors: of another kind, with a text that says which.
fn finite_f32(tensor: &Tensor, device: &Device) -> candle_core::Result<Tensor> {
    let refuse = |problem: String| Err(candle_core::Error::Msg(problem));
    if !matches!(tensor.dtype(), DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
        return refuse(format!("holds {}, not floating-point numbers", tensor.dtype().as_str()));
    }
    let values = tensor.to_dtype(DType::F32)?;
    // An infinite or NaN element makes the sum of magnitudes so; f64 keeps large finite ones from overflowing.
    let magnitude = values.to_dtype(DType::F64)?.abs()?.sum_all()?.to_scalar::<f64>()?;
    match magnitude.is_finite() {
        true => values.to_device(device),
        false => refuse("holds NaN or infinite numbers".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dict(tensors: Vec<(&str, Tensor)>) -> StateDict {
        let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
        StateDict::new(tensors, str::to_string, &Device::Cpu).unwrap()
    }

    fn vector<T: candle_core::WithDType>(values: &[T]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn what_fits_is_handed_out_as_f32_and_counters_are_ignored() {
        let mut weights = dict(vec![("a", vector(&[0.5f64, -2.0])), ("bn.num_batches_tracked", vector(&[7i64]))]);
        assert_eq!(weights.take("a", &[2]).to_vec1::<f32>().unwrap(), [0.5, -2.0]);
        weights.finish("net", "weights").unwrap();
    }

    #[test]
    fn every_misfit_is_listed_at_once_with_its_origin() {
        let mut weights = dict(vec![
            ("long", vector(&[1f32, 2.0, 3.0])),
            ("counts", vector(&[1u32, 2])),
            ("nan", vector(&[1f32, f32::NAN])),
            // Finite in its file, but not as f32.
            ("huge", vector(&[1e300f64, 0.0])),
            ("largest", vector(&[f32::MAX, f32::MIN])),
            ("left", vector(&[1f32])),
        ]);
        for name in ["absent", "long", "counts", "nan", "huge", "largest"] {
            weights.take(name, &[2]);
        }
        let Error::Weights { arch, origin, problems } = weights.finish("net", "some/file").unwrap_err() else {
            panic!()
        };
        assert_eq!((arch.as_str(), origin.as_str()), ("net", "some/file"));
        assert_eq!(
            problems,
            [
                "missing absent [2]",
                "long has shape [3], not [2]",
                "counts holds u32, not floating-point numbers",
                "nan holds NaN or infinite numbers",
                "huge holds NaN or infinite numbers",
                "unexpected left",
            ]
        );
    }

    #[test]
    fn variances_without_a_root_are_misfits() {
        let mut weights =
            dict(vec![("a", vector(&[0f32, 1.0])), ("b", vector(&[1f32, -5e-6])), ("c", vector(&[-1e-5f32]))]);
        weights.take_variances("a", 2, 1e-5);
        weights.take_variances("b", 2, 1e-5);
        weights.take_variances("c", 1, 1e-5);
        weights.take_variances("absent", 1, 1e-5);
        let Error::Weights { problems, .. } = weights.finish("net", "weights").unwrap_err() else { panic!() };
        assert_eq!(
            problems,
            ["c is -0.00001 in channel 0, which with eps = 0.00001 has no root", "missing absent [1]"]
        );
    }

    #[test]
    fn a_tensor_is_handed_out_once() {
        let mut weights = dict(vec![("a", vector(&[1f32]))]);
        weights.take("a", &[1]);
        weights.take("a", &[1]);
        assert!(weights.finish("net", "weights").unwrap_err().to_string().contains("missing a [1]"));
    }
}
