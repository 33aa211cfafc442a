//! How a device computes.

#[cfg(feature = "cuda")]
use super::cuda;
use super::precision::Precision;
#[cfg(feature = "cuda")]
use candle_core::cuda_backend::{CudaDType, cudarc::driver::DeviceRepr};
use candle_core::{Device, Result, Shape, Tensor, WithDType, bail};
#[cfg(feature = "cuda")]
use std::any::Any;

/// The precision of products on `device`.
pub fn precision_of(device: &Device) -> Precision {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::precision_of(device),
        _ => Precision::F32,
    }
}

/// From here on all of this process computes products on `device` in this precision.
///
/// Errors: anything but `f32` on a device that is no NVIDIA GPU.
pub fn set_precision(device: &Device, precision: Precision) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::set_precision(device, precision),
        _ if precision.is_f32() => Ok(()),
        _ => bail!("{precision} is a way to compute of NVIDIA GPUs; leave it out, or use --device cuda:0"),
    }
}

/// While it lives, this thread repeats itself: what Candle uploads to a GPU with a kernel, the sizes of views that are not contiguous, stays
/// there and is not uploaded again; so does any other upload of up to 4 KiB, for good. What differs each time must go through [`put`].
#[must_use = "everything is uploaded each time once it is dropped"]
pub struct Repeating {
    #[cfg(feature = "cuda")]
    _kept: Option<Box<dyn Any>>,
}

impl Repeating {
    /// On `device`; on a CPU this is nothing.
    pub fn on(device: &Device) -> Self {
        let _ = device;
        Self {
            #[cfg(feature = "cuda")]
            _kept: device.as_cuda_device().ok().map(cuda::keep_uploads),
        }
    }
}

/// An element type of tensors on any device.
#[cfg(feature = "cuda")]
pub trait Element: WithDType + CudaDType + DeviceRepr {}
#[cfg(feature = "cuda")]
impl<T: WithDType + CudaDType + DeviceRepr> Element for T {}
/// An element type of tensors on any device.
#[cfg(not(feature = "cuda"))]
pub trait Element: WithDType {}
#[cfg(not(feature = "cuda"))]
impl<T: WithDType> Element for T {}

/// `values` as a tensor on `device`, which will be others the next time ([`Repeating`]).
///
/// Errors: another number of values than the shape has; no memory there.
pub fn put<T: Element>(values: &[T], shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        if values.len() != shape.elem_count() {
            bail!("{} values for {shape:?}", values.len());
        }
        return Ok(cuda::tensor(cuda::uploaded(values, device)?, shape, device));
    }
    Tensor::from_slice(values, &shape, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_on_a_device_has_its_shape() {
        let _repeating = Repeating::on(&Device::Cpu);
        let put_there = |shape: (usize, usize)| put(&[1u32, 2, 3, 4, 5, 6], shape, &Device::Cpu);
        assert_eq!(put_there((2, 3)).unwrap().to_vec2::<u32>().unwrap(), [[1, 2, 3], [4, 5, 6]]);
        assert!(put_there((2, 2)).is_err());
    }

    #[test]
    fn a_cpu_computes_in_f32_alone() {
        set_precision(&Device::Cpu, Precision::F32).unwrap();
        assert!(precision_of(&Device::Cpu).is_f32());
        let problem = set_precision(&Device::Cpu, Precision::Tf32).unwrap_err().to_string();
        assert!(problem.contains("tf32 is a way to compute of NVIDIA GPUs"), "{problem}");
    }
}
