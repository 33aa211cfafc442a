//! How a device computes.

#[cfg(feature = "cuda")]
use super::cuda;
use super::precision::Precision;
use candle_core::{Device, Result, bail};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_computes_in_f32_alone() {
        set_precision(&Device::Cpu, Precision::F32).unwrap();
        assert!(precision_of(&Device::Cpu).is_f32());
        let problem = set_precision(&Device::Cpu, Precision::Tf32).unwrap_err().to_string();
        assert!(problem.contains("tf32 is a way to compute of NVIDIA GPUs"), "{problem}");
    }
}
