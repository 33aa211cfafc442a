//! What `harness doctor` says of the GPUs of a machine.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, result, sys};
use candle_core::{CudaDevice, Result};

/// One GPU.
#[derive(Clone, Debug)]
pub struct Facts {
    pub name: String,
    /// Major and minor number.
    pub compute_capability: (i32, i32),
    pub memory_bytes: u64,
    pub free_bytes: u64,
}

/// The GPUs that this process may use (`CUDA_VISIBLE_DEVICES`).
///
/// Errors: no driver, or one too old for the toolkit of this build.
pub fn gpus() -> Result<Vec<Facts>> {
    (0..CudaContext::device_count().w()?).map(|index| facts(index as usize)).collect()
}

fn facts(index: usize) -> Result<Facts> {
    use sys::CUdevice_attribute_enum as Attribute;
    let context = CudaContext::new(index).w()?;
    context.bind_to_thread().w()?;
    let number = |attribute| context.attribute(attribute).w();
    let (free, total) = result::mem_get_info().w()?;
    Ok(Facts {
        name: context.name().w()?,
        compute_capability: (
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        memory_bytes: total as u64,
        free_bytes: free as u64,
    })
}

/// The name of GPU `index`; `None` where there is none.
pub fn name(index: usize) -> Option<String> {
    CudaContext::new(index).and_then(|context| context.name()).ok()
}

/// Bytes of the device's memory that nobody uses.
///
/// Errors: a device that does not answer.
pub fn free_bytes(device: &CudaDevice) -> Result<u64> {
    device.cuda_stream().context().bind_to_thread().w()?;
    Ok(result::mem_get_info().w()?.0 as u64)
}

/// Versions of what is loaded: the CUDA that the driver knows, cuBLAS and cuDNN, as far as this build uses them.
pub fn versions() -> Vec<(&'static str, String)> {
    let mut versions = Vec::new();
    let mut driver = 0;
    // SAFETY: the driver writes one number.
    if unsafe { sys::cuDriverGetVersion(&mut driver) }.result().is_ok() {
        versions.push(("driver for CUDA", format!("{}.{}", driver / 1000, driver % 1000 / 10)));
    }
    versions.push(("cuBLAS", cublas()));
    #[cfg(feature = "cudnn")]
    {
        let version = super::cudnn::version();
        versions.push(("cuDNN", format!("{}.{}.{}", version / 10000, version / 100 % 100, version % 100)));
    }
    versions
}

fn cublas() -> String {
    use candle_core::cuda_backend::cudarc::cublas::sys::{cublasGetProperty, libraryPropertyType_t as Part};
    let part = |part| {
        let mut number = 0;
        // SAFETY: cuBLAS writes one number.
        unsafe { cublasGetProperty(part, &mut number) }.result().map_or("?".to_string(), |()| number.to_string())
    };
    [Part::MAJOR_VERSION, Part::MINOR_VERSION, Part::PATCH_LEVEL].map(part).join(".")
}
