//! Mini-batches cut from cached activations.

use super::ahead::stream_of_reads;
use super::launch::{Argument, MaskArgument, Module, address, arguments, blocks_of_each, launch_on, module, u32_of};
use super::pinned::PinnedValues;
use super::values::{Values, uploaded};
use crate::ops::mask::Mask;
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, sys};
use candle_core::{CudaDevice, Result, bail};
use std::cell::RefCell;
use std::marker::PhantomData;
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
fn rows_there(rows: &[u32], device: &CudaDevice) -> Result<Rc<CudaSlice<u32>>> {
    LAST.with_borrow_mut(|last| match last {
        Some(last) if last.device == device.id() && last.rows == rows => Ok(last.there.clone()),
        _ => {
            let there = Rc::new(uploaded(rows, device)?);
            *last = Some(Uploaded { device: device.id(), rows: rows.to_vec(), there: there.clone() });
            Ok(there)
        }
    })
}

/// Where rows are, in memory that kernels reach.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    address: sys::CUdeviceptr,
    len: usize,
    is_pinned: bool,
    of: PhantomData<&'a ()>,
}

impl<'a> From<&'a Values<'_>> for Rows<'a> {
    fn from(values: &'a Values) -> Self {
        Self { address: address(&values.elements), len: values.len(), is_pinned: false, of: PhantomData }
    }
}

impl<'a> From<&'a PinnedValues> for Rows<'a> {
    fn from(values: &'a PinnedValues) -> Self {
        Self { address: values.address(), len: values.len(), is_pinned: true, of: PhantomData }
    }
}

impl From<Rows<'_>> for Argument {
    fn from(rows: Rows) -> Self {
        Argument::Pointer(rows.address)
    }
}

/// [`crate::ops::mix::mix_rows`] for rows of `width` elements, which lie inside both. Page-locked ones are read over the bus, inside of
/// [`super::ahead`] beside the device's other work.
pub fn mix_rows(
    device: &CudaDevice,
    [selected, others]: [Rows; 2],
    rows: &[u32],
    width: usize,
    mask: &Mask,
) -> Result<CudaSlice<f32>> {
    if selected.len != others.len {
        bail!("{} elements beside {}", selected.len, others.len);
    }
    let n = rows.len() * width;
    // SAFETY: the kernel writes all of it.
    let (mixed, rows) = (unsafe { device.alloc::<f32>(n)? }, rows_there(rows, device)?);
    let arguments = arguments![selected, others, &*rows, &mixed, u32_of(width)?, MaskArgument::of(mask)?, n as u64];
    let stream = match selected.is_pinned || others.is_pinned {
        true => stream_of_reads(device)?,
        false => device.cuda_stream(),
    };
    // SAFETY: the caller has compared the rows with the length of both.
    unsafe { launch_on(&stream, device, &MIX, "mix_rows", blocks_of_each(n), &arguments)? };
    Ok(mixed)
}
