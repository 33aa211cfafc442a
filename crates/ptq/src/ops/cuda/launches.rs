//! How many kernels a GPU is given: ours, Candle's, and those of cuBLAS and cuDNN, as CUPTI of the CUDA toolkit tells.

use libloading::Library;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

/// The library, wherever the system looks for such; and below the toolkit's folder.
const NAMES: [&str; 3] = ["libcupti.so.13", "libcupti.so.12", "libcupti.so"];
const IN_TOOLKIT: &str = "extras/CUPTI/lib64";
/// Calls of the driver's functions.
const DRIVER_CALLS: c_int = 1;
/// What is told at the beginning of a call; the other is its end.
const BEGINNING: c_int = 0;

thread_local! {
    static LAUNCHED: Cell<u64> = const { Cell::new(0) };
}

/// What CUPTI tells of a call (`CUpti_CallbackData`); what is not needed here is left out behind.
#[repr(C)]
struct Call {
    site: c_int,
    function: *const c_char,
}

type Listener = unsafe extern "C" fn(*mut c_void, c_int, u32, *const Call);
type Subscribe = unsafe extern "C" fn(*mut *mut c_void, Listener, *mut c_void) -> c_int;
type EnableDomain = unsafe extern "C" fn(u32, *mut c_void, c_int) -> c_int;

/// Begins to count, in the whole process.
///
/// Errors: no CUPTI here, or another program that listens to it.
pub fn count_launches() -> Result<(), &'static str> {
    static OUTCOME: OnceLock<Result<(), String>> = OnceLock::new();
    OUTCOME.get_or_init(begin).as_ref().copied().map_err(String::as_str)
}

/// Kernels that this thread has had launched since counting began.
pub fn launches() -> u64 {
    LAUNCHED.get()
}

fn begin() -> Result<(), String> {
    let toolkit = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os);
    let in_toolkit = toolkit.flat_map(|home| {
        let folder = std::path::Path::new(&home).join(IN_TOOLKIT);
        NAMES.map(|name| folder.join(name))
    });
    // SAFETY: what runs when it is loaded is NVIDIA's, as the driver is.
    let open = |path| unsafe { Library::new(path) };
    let library = NAMES.iter().map(std::path::PathBuf::from).chain(in_toolkit).find_map(|path| open(path).ok());
    let library: &'static Library = match library {
        // Until the process ends.
        Some(library) => Box::leak(Box::new(library)),
        None => return Err("libcupti of the CUDA toolkit is not in LD_LIBRARY_PATH or CUDA_HOME".to_string()),
    };
    // SAFETY: these are the functions' types, and the listener is there as long as the process.
    let codes = unsafe {
        let subscribe = library.get::<Subscribe>(c"cuptiSubscribe").map_err(|error| error.to_string())?;
        let enable = library.get::<EnableDomain>(c"cuptiEnableDomain").map_err(|error| error.to_string())?;
        let mut subscriber = std::ptr::null_mut();
        let subscribed = subscribe(&mut subscriber, listen, std::ptr::null_mut());
        (subscribed, if subscribed == 0 { enable(1, subscriber, DRIVER_CALLS) } else { 0 })
    };
    match codes {
        (0, 0) => Ok(()),
        (0, code) | (code, _) => Err(format!("CUPTI gives the error {code}; another profiler may be listening")),
    }
}

unsafe extern "C" fn listen(_: *mut c_void, _: c_int, _: u32, call: *const Call) {
    // SAFETY: CUPTI gives the call and the name of its function, which stay for as long as this takes.
    let (site, function) = unsafe { ((*call).site, CStr::from_ptr((*call).function)) };
    if site == BEGINNING && function.to_bytes().starts_with(b"cuLaunchKernel") {
        // A thread that is ending counts for nobody.
        LAUNCHED.try_with(|launched| launched.set(launched.get() + 1)).ok();
    }
}
