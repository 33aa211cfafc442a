//! Contiguous tensors on a GPU, as kernels take and give them.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Shape, Storage, Tensor, bail};
use std::any::Any;

/// The elements of a contiguous tensor, and the device that they are on.
pub struct Values<'a, T = f32> {
    pub device: &'a CudaDevice,
    pub elements: CudaView<'a, T>,
}

impl<'a, T: CudaDType> Values<'a, T> {
    /// Errors: another element type; a view with gaps.
    pub fn of(storage: &'a CudaStorage, layout: &Layout) -> Result<Self> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("expected a contiguous tensor, got {layout:?}");
        };
        Ok(Self { device: &storage.device, elements: storage.as_cuda_slice::<T>()?.slice(start..end) })
    }

    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Room for `len` elements, which whoever asks must write.
    pub fn room<U: DeviceRepr>(&self, len: usize) -> Result<CudaSlice<U>> {
        // SAFETY: every kernel here writes all of its result before anybody reads it.
        unsafe { self.device.alloc::<U>(len) }
    }
}

/// Calls `f` with the elements of a contiguous tensor on a GPU.
pub fn with_values<T: CudaDType, R>(tensor: &Tensor, f: impl FnOnce(&Values<T>) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => f(&Values::of(storage, layout)?),
        _ => bail!("expected a tensor on a GPU, got one on {:?}", tensor.device()),
    }
}

/// The same with several.
pub fn with_all<T: CudaDType, R, const N: usize>(
    tensors: [&Tensor; N],
    f: impl FnOnce(&[Values<T>; N]) -> Result<R>,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let values = guards.iter().map(|(storage, layout)| match &**storage {
        Storage::Cuda(storage) => Values::of(storage, layout),
        _ => bail!("expected tensors on a GPU"),
    });
    match <[Values<T>; N]>::try_from(values.collect::<Result<Vec<_>>>()?) {
        Ok(values) => f(&values),
        Err(values) => bail!("{} tensors in place of {N}", values.len()),
    }
}

/// While what this gives lives, Candle keeps on the device what it uploads on this thread.
pub fn keep_uploads(device: &CudaDevice) -> Box<dyn Any> {
    // Candle has no name for it outside.
    Box::new(device.enable_cuda_graph_htod_cache())
}

/// `values` on the device, past what Candle keeps.
pub fn uploaded<T: DeviceRepr>(values: &[T], device: &CudaDevice) -> Result<CudaSlice<T>> {
    device.cuda_stream().clone_htod(values).w()
}

/// What an operation of Candle gives back.
pub fn storage<T: CudaDType>(elements: CudaSlice<T>, device: &CudaDevice) -> CudaStorage {
    CudaStorage::wrap_cuda_slice(elements, device.clone())
}

/// A constant tensor.
pub fn tensor<T: CudaDType>(elements: CudaSlice<T>, shape: impl Into<Shape>, device: &CudaDevice) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage(elements, device)), shape, BackpropOp::none(), false)
}
