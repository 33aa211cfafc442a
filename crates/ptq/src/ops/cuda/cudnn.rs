//! Convolution and its two gradients by cuDNN: deterministic algorithms, chosen once for each size, by its heuristics but where these were
//! measured to be far off.
//!
//! Descriptors, algorithm and workspace are kept per thread and device, since handles of cuDNN belong to one thread. Arithmetic is plain
//! f32 (`CUDNN_FMA_MATH`) unless [`Precision`] allows TensorFloat-32.

use super::precision::precision_of;
use super::values::Values;
use crate::ops::precision::Precision;
use crate::ops::sizes::Sizes;
use candle_core::cuda_backend::cudarc::cudnn::{CudnnError, result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, CudaView, DevicePtr, DeviceSlice};
use candle_core::cuda_backend::{DeviceId, WrapErr};
use candle_core::{CudaDevice, Error, Result, bail};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

/// Workspaces above this are not worth their speed: they would not fit beside the activations.
const MAX_WORKSPACE_BYTES: usize = 1 << 30;
/// As many algorithms as cuDNN has of a kind, and more.
const CANDIDATES: usize = 16;

thread_local! {
    static HANDLES: RefCell<HashMap<DeviceId, Handle>> = RefCell::default();
}

/// `conv(x, w)`.
pub fn forward(x: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let y = x.room(sizes.y_len())?;
    run(x.device, sizes, Direction::Forward, &x.elements, &w.elements, &y)?;
    Ok(y)
}

/// The gradient to `x`.
pub fn input_gradient(gy: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let gx = gy.room(sizes.x_len())?;
    run(gy.device, sizes, Direction::InputGradient, &gy.elements, &w.elements, &gx)?;
    Ok(gx)
}

/// The gradient to `w`.
pub fn weight_gradient(x: &Values, gy: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let gw = x.room(sizes.weight())?;
    run(x.device, sizes, Direction::WeightGradient, &x.elements, &gy.elements, &gw)?;
    Ok(gw)
}

/// The version of the cuDNN that is loaded, for example 90100.
pub fn version() -> usize {
    result::get_version()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Direction {
    Forward,
    InputGradient,
    WeightGradient,
}

/// One thread's way to cuDNN on one device.
struct Handle {
    handle: sys::cudnnHandle_t,
    stream: Arc<CudaStream>,
    plans: HashMap<(Sizes, Direction, Precision), Plan>,
    workspace: Option<CudaSlice<u8>>,
}

/// One convolution, prepared.
struct Plan {
    described: Descriptors,
    algorithm: Algorithm,
    workspace_bytes: usize,
}

/// Input, weight, output and geometry.
struct Descriptors {
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    conv: sys::cudnnConvolutionDescriptor_t,
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // Nothing can be done about an error here.
        // SAFETY: made with this structure, and in use only as long as it.
        unsafe {
            let _ = result::destroy_tensor_descriptor(self.x);
            let _ = result::destroy_tensor_descriptor(self.y);
            let _ = result::destroy_filter_descriptor(self.w);
            let _ = result::destroy_convolution_descriptor(self.conv);
        }
    }
}

#[derive(Clone, Copy)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    InputGradient(sys::cudnnConvolutionBwdDataAlgo_t),
    WeightGradient(sys::cudnnConvolutionBwdFilterAlgo_t),
}

fn run(
    device: &CudaDevice,
    sizes: &Sizes,
    direction: Direction,
    a: &CudaView<f32>,
    b: &CudaView<f32>,
    to: &CudaSlice<f32>,
) -> Result<()> {
    if sizes.batch == 0 {
        return Ok(());
    }
    HANDLES.with_borrow_mut(|handles| {
        let handle = match handles.entry(device.id()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Handle::new(device)?),
        };
        handle.run(device, sizes, direction, [pointer(a), pointer(b), pointer(&to.as_view())])
    })
}

fn pointer(view: &CudaView<f32>) -> *mut c_void {
    view.device_ptr(view.stream()).0 as *mut c_void
}

fn described<T>(outcome: std::result::Result<T, CudnnError>, sizes: &Sizes, direction: Direction) -> Result<T> {
    outcome.map_err(|error| Error::msg(format!("cuDNN, {direction:?} of {sizes:?}: {error:?}")))
}

impl Handle {
    fn new(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        let opened = result::create_handle().and_then(|handle| {
            // SAFETY: the handle was just made, and the stream lives as long as it.
            unsafe { result::set_stream(handle, stream.cu_stream() as *mut _) }?;
            Ok(handle)
        });
        match opened {
            Ok(handle) => Ok(Self { handle, stream, plans: HashMap::new(), workspace: None }),
            Err(error) => bail!("cuDNN does not start: {error:?}; check that its libraries are of version 9"),
        }
    }

    fn run(
        &mut self,
        device: &CudaDevice,
        sizes: &Sizes,
        direction: Direction,
        [a, b, to]: [*mut c_void; 3],
    ) -> Result<()> {
        self.stream.context().bind_to_thread().w()?;
        let precision = precision_of(device);
        let plan = match self.plans.entry((*sizes, direction, precision)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(described(Plan::new(self.handle, sizes, direction, precision), sizes, direction)?)
            }
        };
        let bytes = plan.workspace_bytes;
        if self.workspace.as_ref().is_none_or(|workspace| workspace.len() < bytes) && bytes > 0 {
            self.workspace = None;
            // SAFETY: a workspace is written before it is read.
            self.workspace = Some(unsafe { device.alloc::<u8>(bytes)? });
        }
        let workspace = match &self.workspace {
            Some(workspace) if bytes > 0 => workspace.device_ptr(&self.stream).0 as *mut c_void,
            _ => std::ptr::null_mut(),
        };
        // SAFETY: descriptors are alive and describe what `conv` has checked the lengths of.
        described(unsafe { plan.launch(self.handle, workspace, [a, b, to]) }, sizes, direction)?;
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nothing can be done about an error here.
        // SAFETY: made with this structure, and in use only as long as it.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// Of a list in the order of expected speed `$preferred`, else the first algorithm, that exists, repeats its bits and is modest in memory.
macro_rules! choose {
    ($list:expr, $count:expr, $preferred:expr, $precision:expr) => {{
        let candidates = || {
            let suits = |math| $precision == Precision::Tf32 || is_plain(math);
            let all = $list[..$count as usize].iter();
            all.filter(move |of| suits(of.mathType) && is_suitable(of.status, of.determinism, of.memory))
        };
        let preferred = $preferred;
        candidates().find(|candidate| Some(candidate.algo) == preferred).or_else(|| candidates().next())
    }};
}

fn is_suitable(status: sys::cudnnStatus_t, determinism: sys::cudnnDeterminism_t, memory_bytes: usize) -> bool {
    status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
        && determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
        && memory_bytes <= MAX_WORKSPACE_BYTES
}

fn is_plain(math: sys::cudnnMathType_t) -> bool {
    use sys::cudnnMathType_t::{CUDNN_DEFAULT_MATH, CUDNN_FMA_MATH};
    matches!(math, CUDNN_FMA_MATH | CUDNN_DEFAULT_MATH)
}

/// Whether Winograd's algorithm is faster than what the heuristics of cuDNN 9.19 put first: by half for 512 channels on an H100, not for 64.
fn suits_winograd(sizes: &Sizes) -> bool {
    let three = (sizes.k_h, sizes.k_w, sizes.stride, sizes.groups) == (3, 3, 1, 1);
    three && sizes.c_in.min(sizes.c_out) >= 256
}

impl Plan {
    fn new(
        handle: sys::cudnnHandle_t,
        sizes: &Sizes,
        direction: Direction,
        precision: Precision,
    ) -> std::result::Result<Self, CudnnError> {
        use sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        use sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
        let four = |numbers: [usize; 4]| numbers.map(|number| number as i32);
        let Sizes { batch, c_in, h, w, c_out, k_h, k_w, out_h, out_w, stride, top, left, groups, .. } = *sizes;
        let (step, top, left) = (stride as i32, top as i32, left as i32);
        // SAFETY: each descriptor is made here before it is set.
        unsafe {
            let described = Descriptors {
                x: result::create_tensor_descriptor()?,
                w: result::create_filter_descriptor()?,
                y: result::create_tensor_descriptor()?,
                conv: result::create_convolution_descriptor()?,
            };
            let Descriptors { x: x_desc, w: w_desc, y: y_desc, conv } = described;
            result::set_tensor4d_descriptor(x_desc, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, four([batch, c_in, h, w]))?;
            let y_shape = four([batch, c_out, out_h, out_w]);
            result::set_tensor4d_descriptor(y_desc, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, y_shape)?;
            let w_shape = four([c_out, c_in / groups, k_h, k_w]);
            result::set_filter4d_descriptor(w_desc, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NCHW, w_shape)?;
            let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
            result::set_convolution2d_descriptor(conv, top, left, step, step, 1, 1, mode, CUDNN_DATA_FLOAT)?;
            result::set_convolution_group_count(conv, groups as i32)?;
            let math = match precision {
                Precision::F32 => sys::cudnnMathType_t::CUDNN_FMA_MATH,
                Precision::Tf32 => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            };
            result::set_convolution_math_type(conv, math)?;
            let (algorithm, workspace_bytes) = match direction {
                Direction::Forward => {
                    let (mut count, mut list) = (0, [std::mem::zeroed(); CANDIDATES]);
                    let most = CANDIDATES as i32;
                    result::get_convolution_forward_algorithm(
                        handle,
                        x_desc,
                        w_desc,
                        conv,
                        y_desc,
                        most,
                        &mut count,
                        list.as_mut_ptr(),
                    )?;
                    let fallback = sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
                    // In groups, and of single pixels, the plain one is up to twelve times as fast as the heuristics' first on an H100.
                    use sys::cudnnConvolutionFwdAlgo_t as Algo;
                    let preferred = match sizes.groups > 1 || sizes.taps() == 1 {
                        _ if precision == Precision::Tf32 => None,
                        true => Some(Algo::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM),
                        false => suits_winograd(sizes).then_some(Algo::CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED),
                    };
                    let algorithm = choose!(list, count, preferred, precision).map_or(fallback, |best| best.algo);
                    let bytes = result::get_convolution_forward_workspace_size(
                        handle, x_desc, w_desc, conv, y_desc, algorithm,
                    )?;
                    (Algorithm::Forward(algorithm), bytes)
                }
                Direction::InputGradient => {
                    let (mut count, mut list) = (0, [std::mem::zeroed(); CANDIDATES]);
                    let most = CANDIDATES as i32;
                    result::get_convolution_backward_data_algorithm(
                        handle,
                        w_desc,
                        y_desc,
                        conv,
                        x_desc,
                        most,
                        &mut count,
                        list.as_mut_ptr(),
                    )?;
                    let fallback = sys::cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
                    use sys::cudnnConvolutionBwdDataAlgo_t as Algo;
                    let winograd = Algo::CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED;
                    let preferred = (precision.is_f32() && suits_winograd(sizes)).then_some(winograd);
                    let algorithm = choose!(list, count, preferred, precision).map_or(fallback, |best| best.algo);
                    let bytes = result::get_convolution_backward_data_workspace_size(
                        handle, w_desc, y_desc, conv, x_desc, algorithm,
                    )?;
                    (Algorithm::InputGradient(algorithm), bytes)
                }
                Direction::WeightGradient => {
                    let (mut count, mut list) = (0, [std::mem::zeroed(); CANDIDATES]);
                    let most = CANDIDATES as i32;
                    result::get_convolution_backward_filter_algorithm(
                        handle,
                        x_desc,
                        y_desc,
                        conv,
                        w_desc,
                        most,
                        &mut count,
                        list.as_mut_ptr(),
                    )?;
                    let fallback = sys::cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
                    let algorithm = choose!(list, count, None, precision).map_or(fallback, |best| best.algo);
                    let bytes = result::get_convolution_backward_filter_workspace_size(
                        handle, x_desc, y_desc, conv, w_desc, algorithm,
                    )?;
                    (Algorithm::WeightGradient(algorithm), bytes)
                }
            };
            Ok(Plan { described, algorithm, workspace_bytes })
        }
    }

    /// # Safety
    /// The pointers have room for what the descriptors say, in the order of the arguments of the direction.
    unsafe fn launch(
        &self,
        handle: sys::cudnnHandle_t,
        workspace: *mut c_void,
        [a, b, to]: [*mut c_void; 3],
    ) -> std::result::Result<(), CudnnError> {
        let (one, zero) = (1f32, 0f32);
        let (one, zero) = (std::ptr::from_ref(&one).cast(), std::ptr::from_ref(&zero).cast());
        let (Descriptors { x, w, y, conv }, bytes) = (&self.described, self.workspace_bytes);
        let (x, w, y, conv) = (*x, *w, *y, *conv);
        // SAFETY: as the caller promises.
        unsafe {
            match self.algorithm {
                Algorithm::Forward(algorithm) => {
                    result::convolution_forward(handle, one, x, a, w, b, conv, algorithm, workspace, bytes, zero, y, to)
                }
                Algorithm::InputGradient(algorithm) => result::convolution_backward_data(
                    handle, one, w, b, y, a, conv, algorithm, workspace, bytes, zero, x, to,
                ),
                Algorithm::WeightGradient(algorithm) => result::convolution_backward_filter(
                    handle, one, x, a, y, b, conv, algorithm, workspace, bytes, zero, w, to,
                ),
            }
        }
    }
}
