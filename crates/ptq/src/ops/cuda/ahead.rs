//! Work beside a device's own stream: what is read from the host's memory for the next step, while this one is computed.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream};
use candle_core::{CudaDevice, Result};
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    /// The stream beside that of the device that this thread used last.
    static BESIDE: RefCell<Option<Beside>> = const { RefCell::new(None) };
}

struct Beside {
    /// That of the device.
    own: Arc<CudaStream>,
    stream: Arc<CudaStream>,
    /// Whether reads go there now, and whether one did.
    is_open: bool,
    is_used: bool,
}

/// Has the device's own stream wait, at the latest when it is dropped, for what went beside it.
pub struct Arrival {
    own: Arc<CudaStream>,
    event: CudaEvent,
}

impl Drop for Arrival {
    fn drop(&mut self) {
        // A device that cannot wait says so to whoever asks it next.
        self.own.wait(&self.event).ok();
    }
}

/// Runs `f`, whose reads of page-locked memory ([`stream_of_reads`]) go beside the stream of `device`. What they give must be used, and freed,
/// after the arrival was dropped, if there is one: by nothing in `f`.
pub fn ahead<R>(device: &CudaDevice, f: impl FnOnce() -> R) -> Result<(R, Option<Arrival>)> {
    let open = Open::new(device)?;
    let result = f();
    Ok((result, open.arrival()?))
}

/// Reads of this thread go beside the stream of its device until this is dropped.
struct Open;

impl Open {
    fn new(device: &CudaDevice) -> Result<Self> {
        let own = device.cuda_stream();
        BESIDE.with_borrow_mut(|beside| {
            let stream = match beside.take() {
                Some(beside) if Arc::ptr_eq(&beside.own, &own) => beside.stream,
                _ => own.context().new_stream().w()?,
            };
            *beside = Some(Beside { own, stream, is_open: true, is_used: false });
            Ok(Self)
        })
    }

    /// When what was read is there; `None` if nothing was.
    fn arrival(&self) -> Result<Option<Arrival>> {
        BESIDE.with_borrow_mut(|beside| {
            let Some(beside) = beside.as_mut().filter(|beside| beside.is_used) else { return Ok(None) };
            beside.is_used = false;
            Ok(Some(Arrival { own: beside.own.clone(), event: beside.stream.record_event(None).w()? }))
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Of a panic nobody gets the arrival: the wait is at once.
        self.arrival().ok();
        BESIDE.with_borrow_mut(|beside| beside.iter_mut().for_each(|beside| beside.is_open = false));
    }
}

/// The stream for a read of page-locked memory into memory of `device` that was just allocated: the device's own, or inside of [`ahead`] that
/// beside it, which waits for all that was asked of the device before.
pub fn stream_of_reads(device: &CudaDevice) -> Result<Arc<CudaStream>> {
    BESIDE.with_borrow_mut(|beside| match beside {
        Some(beside) if beside.is_open && Arc::ptr_eq(&beside.own, &device.cuda_stream()) => {
            beside.stream.join(&beside.own).w()?;
            beside.is_used = true;
            Ok(beside.stream.clone())
        }
        _ => Ok(device.cuda_stream()),
    })
}
