//! Which devices may use TensorFloat-32.

use crate::ops::precision::Precision;
use candle_core::cuda_backend::cudarc::cublas::sys::{cublasMath_t, cublasSetMathMode};
use candle_core::cuda_backend::{DeviceId, WrapErr};
use candle_core::{CudaDevice, Result, bail};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

static CHOSEN: LazyLock<Mutex<HashMap<DeviceId, Precision>>> = LazyLock::new(Mutex::default);

/// [`crate::ops::device::set_precision`] for cuBLAS, of Candle and of ours, and for plans of cuDNN.
pub fn set_precision(device: &CudaDevice, precision: Precision) -> Result<()> {
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    if chosen.get(&device.id()).copied().unwrap_or_default() == precision {
        return Ok(());
    }
    let mode = match precision {
        Precision::F32 => cublasMath_t::CUBLAS_DEFAULT_MATH,
        Precision::Tf32 => cublasMath_t::CUBLAS_TF32_TENSOR_OP_MATH,
    };
    device.cuda_stream().context().bind_to_thread().w()?;
    // SAFETY: the handle lives as long as its device.
    if let Err(error) = unsafe { cublasSetMathMode(*device.cublas_handle().handle(), mode) }.result() {
        bail!("cuBLAS does not compute in {precision}: {error:?}");
    }
    chosen.insert(device.id(), precision);
    Ok(())
}

/// What was chosen for a device.
pub fn precision_of(device: &CudaDevice) -> Precision {
    CHOSEN.lock().unwrap_or_else(PoisonError::into_inner).get(&device.id()).copied().unwrap_or_default()
}
