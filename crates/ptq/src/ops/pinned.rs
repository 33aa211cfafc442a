//! Rows in page-locked memory of the host, where a GPU reads them by itself: no work of the host, and no wait.

#[cfg(feature = "cuda")]
use super::cuda;
#[cfg(feature = "cuda")]
use super::dispatch::has_kernels_on;
#[cfg(not(feature = "cuda"))]
use candle_core::bail;
use candle_core::{Device, Result, Tensor};

/// `(N, ...)`, f32, in page-locked memory; what was not written yet is anything.
pub struct Pinned {
    /// Never there in a build without GPUs.
    #[cfg(feature = "cuda")]
    values: cuda::PinnedValues,
    device: Device,
    dims: Vec<usize>,
}

impl Pinned {
    /// Room for rows of these dimensions, read by `device`; `None` where that is no GPU with kernels of ours, or the system locks no more
    /// memory.
    ///
    /// Errors: a device that does not answer.
    #[cfg(feature = "cuda")]
    pub fn new(dims: &[usize], device: &Device) -> Result<Option<Self>> {
        let Device::Cuda(cuda) = device else { return Ok(None) };
        if !has_kernels_on(device) {
            return Ok(None);
        }
        let values = cuda::PinnedValues::new(dims.iter().product(), cuda)?;
        Ok(values.map(|values| Self { values, device: device.clone(), dims: dims.to_vec() }))
    }

    /// `None`: this build knows no GPUs.
    #[cfg(not(feature = "cuda"))]
    pub fn new(_: &[usize], _: &Device) -> Result<Option<Self>> {
        Ok(None)
    }

    /// `(N, ...)`.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The device that reads them.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Elements of a row.
    fn width(&self) -> usize {
        self.dims[1..].iter().product()
    }

    /// Puts the rows of the contiguous `batch` `(n, ...)` at `row`; the device does so once it has computed them.
    ///
    /// Errors: no room for them there; another device.
    pub fn write(&mut self, row: usize, batch: &Tensor) -> Result<()> {
        let at = row * self.width();
        #[cfg(feature = "cuda")]
        return cuda::with_values::<f32, _>(batch, |values| self.values.write(at, values));
        #[cfg(not(feature = "cuda"))]
        bail!("no room for {batch:?} at {at}")
    }

    /// Puts `values` in front, once the device has read what was there.
    ///
    /// Errors: more of them than there is room.
    pub fn fill(&mut self, values: &[f32]) -> Result<()> {
        #[cfg(feature = "cuda")]
        return self.values.fill(values);
        #[cfg(not(feature = "cuda"))]
        bail!("no room for {} values", values.len())
    }

    /// Rows `start` to `start + len` `(len, ...)`, on the device.
    ///
    /// Errors: rows that are not there; no memory on the device.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Tensor> {
        let (at, count) = (start * self.width(), len * self.width());
        #[cfg(feature = "cuda")]
        {
            let dims = [&[len], &self.dims[1..]].concat();
            Ok(cuda::tensor(self.values.read(at, count)?, dims, self.values.device()))
        }
        #[cfg(not(feature = "cuda"))]
        bail!("no {count} values at {at}")
    }

    #[cfg(feature = "cuda")]
    pub(super) fn values(&self) -> &cuda::PinnedValues {
        &self.values
    }
}
