//! Where to compute: the devices that a user names.

use crate::error::{Error, Result};
use crate::launch::device_name;
use candle_core::Device;

/// The devices of a run.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// Where to compute: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto", env = "HARNESS_DEVICE")]
    device: String,
    /// Several devices in its place, for example `cuda:0,cuda:1`: each computes one cell at a time.
    #[arg(long, value_name = "DEVICE,...", value_delimiter = ',')]
    devices: Vec<String>,
}

impl DeviceArgs {
    /// Errors: an unknown name; a device that this binary or machine does not have.
    pub fn open(&self) -> Result<Vec<Device>> {
        match self.devices.is_empty() {
            true => Ok(vec![device(&self.device)?]),
            false => self.devices.iter().map(|name| device(name)).collect(),
        }
    }
}

/// `device` for one more worker: a GPU is opened once more, and has a stream for each.
pub fn another(of: &Device) -> Result<Device> {
    device(&device_name(of))
}

/// The device called `auto`, `cpu` or `cuda:N`.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        // Only a binary with CUDA has a reason to say why it computes elsewhere.
        "auto" if cfg!(feature = "cuda") => Ok(cuda(0).unwrap_or_else(|problem| {
            tell!("note: computing on the CPU, since there is no CUDA device: {problem}");
            Device::Cpu
        })),
        "auto" => Ok(Device::Cpu),
        _ => match name.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => cuda(index).map_err(|problem| Error::Device(format!("--device {name}: {problem}"))),
            None => Err(Error::Usage(format!("--device {name:?} is not auto, cpu or cuda:N"))),
        },
    }
}

/// The CUDA device `index`, or why there is none.
#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, String> {
    ptq::ops::cuda::open(index).map_err(|error| ptq::device_error::DeviceError::explained(&error.to_string()))
}

/// This binary has no CUDA.
#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device, String> {
    let build = "cargo build --release --features cuda";
    Err(format!("this binary was built for the CPU alone; use --device cpu, or build it with `{build}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_missing_devices_are_told_apart() {
        assert!(device("cpu").unwrap().is_cpu());
        for name in ["gpu", "cuda", "cuda:", "cuda:x", "CPU", ""] {
            assert!(matches!(device(name), Err(Error::Usage(_))), "{name}");
        }
        // No machine has as many.
        assert!(matches!(device("cuda:4000"), Err(Error::Device(_))));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_binary_for_the_cpu_computes_there_and_says_how_to_build_another() {
        assert!(device("auto").unwrap().is_cpu());
        let error = device("cuda:0").unwrap_err().to_string();
        assert!(error.contains("--device cuda:0") && error.contains("--features cuda"), "{error}");
    }
}
