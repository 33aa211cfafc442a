//! Which of two implementations of an operation computes it: kernels of ours, or a chain of Candle's operations.

use candle_core::{DType, Device, Tensor};
use std::sync::OnceLock;

/// Environment variable that makes every operation a chain of Candle's on any device, to check one against the other.
const COMPOSED: &str = "HARNESS_COMPOSED";

/// `native()` where this build has kernels for tensors like `x`, else `composed()`.
///
/// Kernels there are on the CPU for `f32` and `f64`, and with the feature `cuda` on NVIDIA GPUs for `f32`. With `HARNESS_COMPOSED=1`
/// in the environment no kernel is used anywhere.
pub fn dispatch<R>(x: &Tensor, native: impl FnOnce() -> R, composed: impl FnOnce() -> R) -> R {
    if has_kernels(x) { native() } else { composed() }
}

/// Whether kernels of ours compute what is on the device of `x`, of its element type.
pub(super) fn has_kernels(x: &Tensor) -> bool {
    has_kernels_for(x, DType::F32)
}

/// The same for an operation whose kernels for GPUs are of elements of type `on_gpus`.
pub(super) fn has_kernels_for(x: &Tensor, on_gpus: DType) -> bool {
    has_kernels_on(x.device()) && (x.device().is_cpu() || x.dtype() == on_gpus)
}

/// Whether there are kernels of ours for `device`.
pub(super) fn has_kernels_on(device: &Device) -> bool {
    let on_device = match device {
        Device::Cpu => true,
        Device::Cuda(_) => cfg!(feature = "cuda"),
        Device::Metal(_) => false,
    };
    on_device && !composed_everywhere()
}

fn composed_everywhere() -> bool {
    static EVERYWHERE: OnceLock<bool> = OnceLock::new();
    *EVERYWHERE.get_or_init(|| std::env::var_os(COMPOSED).is_some_and(|value| !value.is_empty() && value != "0"))
}
