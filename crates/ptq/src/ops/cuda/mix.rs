//! Mini-batches cut from cached activations.

use super::launch::{MaskArgument, Module, arguments, blocks_of_each, launch, module, u32_of};
use super::relu::same_length;
use super::values::Values;
use crate::ops::mask::Mask;
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, Result};
use std::cell::RefCell;
use std::rc::Rc;

const MIX: Module = module!("mix");

thread_local! {
    /// The rows that went to a device last: all tensors of a mini-batch are cut at the same ones.
    static LAST: RefCell<Option<Uploaded>> = const { RefCell::new(None) };
}

struct Uploaded {
    device: DeviceId,
    rows: Vec<u32>,
    there: Rc<CudaSlice<u32>>,
}

/// `rows` on the device.
fn uploaded(rows: &[u32], device: &CudaDevice) -> Result<Rc<CudaSlice<u32>>> {
    LAST.with_borrow_mut(|last| match last {
        Some(last) if last.device == device.id() && last.rows == rows => Ok(last.there.clone()),
        _ => {
            let there = Rc::new(device.clone_htod(rows)?);
            *last = Some(Uploaded { device: device.id(), rows: rows.to_vec(), there: there.clone() });
            Ok(there)
        }
    })
}

/// [`crate::ops::mix::mix_rows`] for rows of `width` elements, which lie inside both tensors.
pub fn mix_rows(selected: &Values, others: &Values, rows: &[u32], width: usize, mask: &Mask) -> Result<CudaSlice<f32>> {
    same_length(selected, others)?;
    let n = rows.len() * width;
    let (mixed, rows) = (selected.room(n)?, uploaded(rows, selected.device)?);
    let arguments = arguments![selected, others, &*rows, &mixed, u32_of(width)?, MaskArgument::of(mask)?, n as u64];
    // SAFETY: the caller has compared the rows with the tensors' length.
    unsafe { launch(selected.device, &MIX, "mix_rows", blocks_of_each(n), &arguments)? };
    Ok(mixed)
}
