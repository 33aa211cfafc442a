//! How products of matrices are rounded on GPUs.

use candle_core::{Device, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How factors of convolutions and matrix products are rounded before they are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Not at all: `f32`.
    #[default]
    F32,
    /// TensorFloat-32: to 10 bits of mantissa, on NVIDIA GPUs of compute capability 8.0 and later.
    Tf32,
}

impl Precision {
    /// Whether it is the default.
    pub fn is_f32(&self) -> bool {
        *self == Precision::F32
    }

    /// How `device` computes.
    pub fn of(device: &Device) -> Self {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => super::cuda::precision_of(device),
            _ => Precision::F32,
        }
    }

    /// From here on all of this process computes on `device` in this way.
    ///
    /// Errors: anything but `f32` on a device that is no NVIDIA GPU.
    pub fn set_on(self, device: &Device) -> Result<()> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => super::cuda::set_precision(device, self),
            _ if self.is_f32() => Ok(()),
            _ => candle_core::bail!("{self} is a way to compute of NVIDIA GPUs; leave it out, or use --device cuda:0"),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_computes_in_f32_alone() {
        Precision::F32.set_on(&Device::Cpu).unwrap();
        assert!(Precision::of(&Device::Cpu).is_f32());
        let problem = Precision::Tf32.set_on(&Device::Cpu).unwrap_err().to_string();
        assert!(problem.contains("tf32 is a way to compute of NVIDIA GPUs"), "{problem}");
    }
}
