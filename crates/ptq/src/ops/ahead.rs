//! Reading for the next step while this one is computed.

#[cfg(feature = "cuda")]
use super::cuda;
use candle_core::{Device, Result};

/// What was read ahead. On a GPU it may not be there yet.
pub struct Ahead<R> {
    /// Dropped first: whatever happens to the rest happens after it arrived.
    #[cfg(feature = "cuda")]
    _arrival: Option<cuda::Arrival>,
    result: R,
}

impl<R> Ahead<R> {
    /// The result; what `device` is asked from here on is done when it has arrived.
    pub fn arrived(self) -> R {
        self.result
    }
}

/// Runs `f`, which cuts rows ([`super::mix::mix_rows`]) and uses them for nothing yet. Those in page-locked memory come to a GPU
/// beside what it is asked until [`Ahead::arrived`].
///
/// Errors: a device that does not answer.
pub fn ahead<R>(device: &Device, f: impl FnOnce() -> R) -> Result<Ahead<R>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        let (result, _arrival) = cuda::ahead(device, f)?;
        return Ok(Ahead { _arrival, result });
    }
    let _ = device;
    Ok(Ahead {
        #[cfg(feature = "cuda")]
        _arrival: None,
        result: f(),
    })
}
