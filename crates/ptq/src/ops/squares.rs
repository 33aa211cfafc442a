//! Sums of squares of several tensors, as norms of gradients need them.

#[cfg(feature = "cuda")]
use super::cuda;
#[cfg(feature = "cuda")]
use super::dispatch::has_kernels;
use candle_core::{Result, Tensor};

/// `sum of x^2` of each of `tensors`, which lie on one device: `(tensors.len())`, of their element type. No gradient.
///
/// Errors: no tensors at all.
pub fn sums_of_squares(tensors: &[Tensor]) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(first) = tensors.first()
        && let candle_core::Device::Cuda(device) = first.device()
        && tensors.iter().all(has_kernels)
    {
        let contiguous = tensors.iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
        return Ok(cuda::tensor(cuda::sums_of_squares(&contiguous, device)?, tensors.len(), device));
    }
    let sums = tensors.iter().map(|tensor| tensor.detach().sqr()?.sum_all());
    Tensor::stack(&sums.collect::<Result<Vec<_>>>()?, 0)
}
