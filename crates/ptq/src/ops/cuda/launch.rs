//! Devices, and launching kernels on them.

use super::values::Values;
use crate::ops::mask::Mask;
use crate::ops::sizes::Sizes;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg, sys,
};
use candle_core::cuda_backend::{DeviceId, WrapErr};
use candle_core::{CudaDevice, Device, Result, bail};
use std::cell::RefCell;
use std::collections::HashMap;

/// Threads of a block, `BLOCK_THREADS` of `kernels/launch.h`.
const BLOCK_THREADS: u32 = 256;
/// Elements that one block of a sum over all adds up, `BLOCK_ELEMENTS` of `kernels/sums.h`.
pub(super) const BLOCK_ELEMENTS: usize = 4096;

/// Parameters or vectors of one launch, `MOST` of `kernels/adam.cu` and `kernels/squares.cu`: as many as fit into the 4 KiB that arguments may take.
pub(super) const MOST: usize = 64;

/// One source of kernels, compiled to PTX by the build script.
pub struct Module {
    pub name: &'static str,
    pub ptx: &'static str,
}

macro_rules! module {
    ($name:literal) => {
        $crate::ops::cuda::launch::Module {
            name: $name,
            ptx: include_str!(concat!(env!("OUT_DIR"), "/", $name, ".ptx")),
        }
    };
}
pub(super) use module;

const SUMS: Module = module!("sums");

thread_local! {
    static FUNCTIONS: RefCell<HashMap<(DeviceId, &'static str), CudaFunction>> = RefCell::default();
}

/// The CUDA device `index`, with a stream of its own and memory that stays with the process once it was used.
///
/// Errors: no driver; no such device; one that is in use exclusively, or whose memory is full.
pub fn open(index: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(index)?;
    if let Device::Cuda(cuda) = &device {
        // SAFETY: events order work on several streams, and all work of this device goes to the one just made.
        unsafe { cuda.disable_event_tracking() };
        keep_freed_memory(cuda)?;
    }
    Ok(device)
}

/// By default the driver gives freed memory back whenever somebody waits for the device, and getting it again takes longer than
/// most kernels.
fn keep_freed_memory(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    if !stream.context().has_async_alloc() {
        return Ok(());
    }
    let ordinal = stream.context().cu_device();
    let mut pool = std::ptr::null_mut();
    let mut threshold = u64::MAX;
    // SAFETY: the device exists; the attribute takes a 64-bit number.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, ordinal).result().w()?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, std::ptr::from_mut(&mut threshold).cast()).result().w()
    }
}

/// One argument of a kernel.
pub enum Argument {
    Pointer(sys::CUdeviceptr),
    F32(f32),
    F64(f64),
    U32(u32),
    U64(u64),
    Mask(MaskArgument),
    Levels(LevelsArgument),
    /// Large beside the others.
    Parameters(Box<Parameters>),
    Vectors(Box<Vectors>),
    /// Several numbers in a structure.
    Three([u32; 3]),
    Seven([u32; 7]),
    Ten([u32; 10]),
}

/// `Mask` of `kernels/random.h`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MaskArgument {
    all: u32,
    key: [u32; 2],
    threshold: u32,
}

/// `Levels` of `kernels/fake_quant.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LevelsArgument {
    pub low: f32,
    pub high: f32,
    pub clip_then_round: u32,
}

/// `Parameters` of `kernels/adam.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Parameters {
    pub p: [sys::CUdeviceptr; MOST],
    pub m: [sys::CUdeviceptr; MOST],
    pub v: [sys::CUdeviceptr; MOST],
    pub g: [sys::CUdeviceptr; MOST],
    pub step_size: [f32; MOST],
    pub end: [u32; MOST],
    pub len: [u32; MOST],
    pub count: u32,
}

// SAFETY: plain numbers, laid out as C does.
unsafe impl DeviceRepr for Parameters {}

/// `Vectors` of `kernels/squares.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Vectors {
    pub x: [sys::CUdeviceptr; MOST],
    pub end: [u32; MOST],
    pub len: [u32; MOST],
    pub count: u32,
}

// SAFETY: plain numbers, laid out as C does.
unsafe impl DeviceRepr for Vectors {}

// SAFETY: plain numbers, laid out as C does.
unsafe impl DeviceRepr for MaskArgument {}
// SAFETY: as above.
unsafe impl DeviceRepr for LevelsArgument {}

impl MaskArgument {
    /// Errors: a mask that was given element by element, which kernels do not take.
    pub fn of(mask: &Mask) -> Result<Self> {
        match mask {
            Mask::All => Ok(Self { all: 1, key: [0; 2], threshold: 0 }),
            Mask::Keyed { key, threshold } => Ok(Self { all: 0, key: *key, threshold: *threshold }),
            Mask::Given(_) => bail!("a mask given element by element on a GPU"),
        }
    }
}

impl<T> From<&Values<'_, T>> for Argument {
    fn from(values: &Values<T>) -> Self {
        Self::from(&values.elements)
    }
}

/// Where elements lie.
pub fn address<T>(elements: &impl DevicePtr<T>) -> sys::CUdeviceptr {
    // The guard would record an event, and events are off.
    elements.device_ptr(elements.stream()).0
}

impl<T> From<&CudaView<'_, T>> for Argument {
    fn from(view: &CudaView<T>) -> Self {
        Argument::Pointer(address(view))
    }
}

impl<T> From<&CudaSlice<T>> for Argument {
    fn from(slice: &CudaSlice<T>) -> Self {
        Argument::Pointer(address(slice))
    }
}

impl<A> From<Option<A>> for Argument
where
    Argument: From<A>,
{
    /// A null pointer where there is none.
    fn from(argument: Option<A>) -> Self {
        argument.map_or(Argument::Pointer(0), Argument::from)
    }
}

/// Each argument as it is.
macro_rules! from_number {
    ($($kind:ty => $variant:ident),*) => {
        $(impl From<$kind> for Argument {
            fn from(number: $kind) -> Self {
                Argument::$variant(number)
            }
        })*
    };
}
from_number!(f32 => F32, f64 => F64, u32 => U32, u64 => U64, MaskArgument => Mask, LevelsArgument => Levels, Box<Parameters> => Parameters, [u32; 3] => Three, [u32; 7] => Seven, [u32; 10] => Ten);

/// The arguments of a kernel in order, each turned into an [`Argument`].
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { [$($crate::ops::cuda::launch::Argument::from($argument)),*] };
}
pub(super) use arguments;

/// Blocks for a kernel that visits `n` elements one by one.
pub fn blocks_of_each(n: usize) -> usize {
    n.div_ceil(BLOCK_THREADS as usize)
}

/// `n` as the 32-bit number that kernels take for sizes of planes, channels and rows.
pub fn u32_of(n: usize) -> Result<u32> {
    match u32::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => bail!("a size of {n}, too large for the kernels of this build"),
    }
}

/// `Sizes` of `kernels/convolution.h`.
pub fn convolution(sizes: &Sizes) -> Result<[u32; 10]> {
    let Sizes { c_in, h, w, out_h, out_w, k_h, k_w, stride, top, bottom, left, right, .. } = *sizes;
    let mut numbers = [0; 10];
    // Kernels take positions in a plane, in one that is padded, and in the weight as numbers of 32 bits.
    for positions in [h * w, out_h * out_w, top + h + bottom, left + w + right, sizes.weight()] {
        u32_of(positions)?;
    }
    for (to, size) in numbers.iter_mut().zip([c_in, h, w, out_h, out_w, k_h, k_w, stride, top, left]) {
        *to = u32_of(size)?;
    }
    Ok(numbers)
}

/// Launches kernel `name` of `module` with `blocks` blocks; none at all where there is nothing to do.
///
/// # Safety
/// `arguments` are those of the kernel in number, kind and order, and each pointer has room for what it reads and writes there.
pub unsafe fn launch(
    device: &CudaDevice,
    module: &Module,
    name: &'static str,
    blocks: usize,
    arguments: &[Argument],
) -> Result<()> {
    // SAFETY: as the caller promises.
    unsafe { launch_on(&device.cuda_stream(), device, module, name, blocks, arguments) }
}

/// The same on a stream that need not be the device's own.
///
/// # Safety
/// As for [`launch`], and what the pointers lead to is there for as long as the stream works.
pub unsafe fn launch_on(
    stream: &CudaStream,
    device: &CudaDevice,
    module: &Module,
    name: &'static str,
    blocks: usize,
    arguments: &[Argument],
) -> Result<()> {
    if blocks == 0 {
        return Ok(());
    }
    let function = FUNCTIONS.with_borrow_mut(|functions| -> Result<CudaFunction> {
        if let Some(function) = functions.get(&(device.id(), name)) {
            return Ok(function.clone());
        }
        let function = device.get_or_load_custom_func(name, module.name, module.ptx)?.into_cuda_function();
        functions.insert((device.id(), name), function.clone());
        Ok(function)
    })?;
    let mut builder = stream.launch_builder(&function);
    for argument in arguments {
        match argument {
            Argument::Pointer(pointer) => builder.arg(pointer),
            Argument::F32(number) => builder.arg(number),
            Argument::F64(number) => builder.arg(number),
            Argument::U32(number) => builder.arg(number),
            Argument::U64(number) => builder.arg(number),
            Argument::Mask(mask) => builder.arg(mask),
            Argument::Levels(levels) => builder.arg(levels),
            Argument::Parameters(parameters) => builder.arg(&**parameters),
            Argument::Vectors(vectors) => builder.arg(&**vectors),
            Argument::Three(numbers) => builder.arg(numbers),
            Argument::Seven(numbers) => builder.arg(numbers),
            Argument::Ten(numbers) => builder.arg(numbers),
        };
    }
    let config =
        LaunchConfig { grid_dim: (u32_of(blocks)?, 1, 1), block_dim: (BLOCK_THREADS, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: as the caller promises.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// Sums over all `n` elements: `partial` launches the kernel that leaves one number per block; the result is `factor` times their sum,
/// one element.
pub fn sum_of_blocks(
    values: &Values,
    n: usize,
    factor: f64,
    partial: impl FnOnce(usize, &CudaSlice<f64>) -> Result<()>,
) -> Result<CudaSlice<f32>> {
    let blocks = n.div_ceil(BLOCK_ELEMENTS);
    let (sums, total) = (values.room::<f64>(blocks.max(1))?, values.room::<f32>(1)?);
    partial(blocks, &sums)?;
    let arguments = arguments![&sums, &total, factor, u32_of(blocks)?];
    // SAFETY: `add_up` reads `blocks` numbers and writes one.
    unsafe { launch(values.device, &SUMS, "add_up", 1, &arguments)? };
    Ok(total)
}

/// `to = sum over images of x[image]`, in their order.
pub fn add_images(device: &CudaDevice, x: &CudaSlice<f32>, images: usize, to: &CudaView<f32>) -> Result<()> {
    let arguments = arguments![x, to, u32_of(images)?, to.len() as u64];
    // SAFETY: each image has as many values as the sum.
    unsafe { launch(device, &SUMS, "add_images", blocks_of_each(to.len()), &arguments) }
}
