//! Page-locked memory of the host: a GPU copies to and from it while the host goes on, and kernels read it where it lies.

use super::launch::address;
use super::values::Values;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaSlice, result, sys};
use candle_core::{CudaDevice, Result};

/// Room for numbers in page-locked memory.
pub struct PinnedValues {
    start: *mut f32,
    len: usize,
    device: CudaDevice,
    /// When the device has read or written what it was told to so far.
    used: CudaEvent,
}

// SAFETY: the memory is this value's own, and what is done to it goes through the device's stream.
unsafe impl Send for PinnedValues {}
// SAFETY: shared, it is only read.
unsafe impl Sync for PinnedValues {}

impl PinnedValues {
    /// For `len` numbers, which kernels of `device` can reach. `None` where the system locks no more memory.
    ///
    /// Errors: a device that does not answer.
    pub fn new(len: usize, device: &CudaDevice) -> Result<Option<Self>> {
        let stream = device.cuda_stream();
        let used = stream.record_event(None).w()?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: nobody reads it before it is written, which whoever asks must see to.
        match unsafe { result::malloc_host(len.max(1) * size_of::<f32>(), flags) } {
            Ok(start) => Ok(Some(Self { start: start.cast(), len, device: device.clone(), used })),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            Err(error) => Err(error).w(),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// Where kernels find it: with unified addresses the host's address is the device's.
    pub fn address(&self) -> sys::CUdeviceptr {
        self.start as sys::CUdeviceptr
    }

    /// Puts `values` at `at`, once all that was asked of the device before is done.
    ///
    /// Errors: no room for them there.
    pub fn write(&mut self, at: usize, values: &Values) -> Result<()> {
        self.check(at, values.len())?;
        let (bytes, stream) = (values.len() * size_of::<f32>(), self.device.cuda_stream());
        stream.context().bind_to_thread().w()?;
        // SAFETY: there is room, for as long as work of the stream may last (`drop`); the source is freed in the stream's order.
        unsafe {
            let to = self.start.add(at).cast();
            sys::cuMemcpyDtoHAsync_v2(to, address(&values.elements), bytes, stream.cu_stream()).result().w()?;
            self.used.record(&stream).w()
        }
    }

    /// Puts `values` in front, when the device has done all that it was told to do with what is there.
    ///
    /// Errors: no room for them; a device that failed.
    pub fn fill(&mut self, values: &[f32]) -> Result<()> {
        self.check(0, values.len())?;
        self.used.synchronize().w()?;
        // SAFETY: there is room, and nobody reads it any more.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.start, values.len()) };
        Ok(())
    }

    /// `len` numbers from `at` on, on the device.
    ///
    /// Errors: no such part; no memory on the device.
    pub fn read(&self, at: usize, len: usize) -> Result<CudaSlice<f32>> {
        self.check(at, len)?;
        // SAFETY: all of it is written below, from memory that is there for as long as work of the stream may last.
        unsafe {
            let there = self.device.alloc::<f32>(len)?;
            let (from, stream) = (self.start.add(at).cast(), self.device.cuda_stream());
            sys::cuMemcpyHtoDAsync_v2(address(&there), from, len * size_of::<f32>(), stream.cu_stream())
                .result()
                .w()?;
            self.used.record(&stream).w()?;
            Ok(there)
        }
    }

    fn check(&self, at: usize, len: usize) -> Result<()> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => candle_core::bail!("numbers {at} to {at} + {len} of {}", self.len),
        }
    }
}

impl Drop for PinnedValues {
    fn drop(&mut self) {
        // Whoever looks at it through another stream has the device's own wait for that (`ahead`).
        self.device.cuda_stream().synchronize().ok();
        // SAFETY: it came from `malloc_host`, and no work of the device is left that knows of it.
        unsafe { result::free_host(self.start.cast()).ok() };
    }
}
