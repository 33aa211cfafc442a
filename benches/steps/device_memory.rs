//! The most memory that tensors take on a GPU, as the pool counts it from which the driver serves them.

#[cfg(not(feature = "cuda"))]
use candle_core::Device;

// Not every benchmark counts memory.
#[cfg(feature = "cuda")]
#[allow(unused_imports)]
pub use pool::{peak_bytes, reset};

/// Nothing to count without CUDA.
#[cfg(not(feature = "cuda"))]
pub fn reset(_: &Device) {}

/// Not known without CUDA.
#[cfg(not(feature = "cuda"))]
pub fn peak_bytes(_: &Device) -> Option<u64> {
    None
}

#[cfg(feature = "cuda")]
mod pool {
    use candle_core::Device;
    use candle_core::cuda_backend::cudarc::driver::{result, sys};

    const HIGH: sys::CUmemPool_attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;

    #[allow(unsafe_code)]
    fn of(device: &Device) -> Option<sys::CUmemoryPool> {
        let stream = device.as_cuda_device().ok()?.cuda_stream();
        // SAFETY: the device is that of a live context.
        unsafe { result::device::get_default_mem_pool(stream.context().cu_device()) }.ok()
    }

    /// Counts anew, from what is in use now.
    #[allow(unsafe_code)]
    pub fn reset(device: &Device) {
        let mut zero = 0u64;
        if let Some(pool) = of(device) {
            // SAFETY: the pool lives as long as its device; the attribute is a `u64`.
            unsafe { result::mem_pool::set_attribute(pool, HIGH, (&raw mut zero).cast()) }.ok();
        }
    }

    /// Bytes in use at most since [`reset`]; `None` on the CPU, and where the driver does not tell.
    #[allow(unsafe_code)]
    pub fn peak_bytes(device: &Device) -> Option<u64> {
        let mut bytes = 0u64;
        // SAFETY: as above.
        unsafe { result::mem_pool::get_attribute(of(device)?, HIGH, (&raw mut bytes).cast()) }.ok()?;
        Some(bytes)
    }
}
