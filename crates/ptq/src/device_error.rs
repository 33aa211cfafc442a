//! What errors of a GPU mean, and what to do about them.
//!
//! Candle keeps errors of NVIDIA's driver and libraries as text, in which their names are.

/// A kind of error.
#[derive(Debug, PartialEq, Eq)]
pub struct DeviceError {
    /// Names of the driver and its libraries for it.
    names: &'static [&'static str],
    /// What happened.
    pub what: &'static str,
    /// What to do next.
    pub remedy: &'static str,
    /// What it leaves of the device.
    pub left: Left,
}

/// What an error leaves of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It computes other things.
    Usable,
    /// Fewer images at a time may succeed.
    Memory,
    /// Nothing more can be computed on it by this process.
    Nothing,
}

const KINDS: &[DeviceError] = &[
    DeviceError {
        names: &["CUDA_ERROR_NO_DEVICE"],
        what: "no NVIDIA GPU is visible",
        remedy: "see what nvidia-smi says, and CUDA_VISIBLE_DEVICES; --device cpu computes without one",
        left: Left::Nothing,
    },
    DeviceError {
        names: &["CUDA_ERROR_INVALID_DEVICE"],
        what: "there is no GPU of this number",
        remedy: "`harness doctor` lists those that are there",
        left: Left::Nothing,
    },
    DeviceError {
        names: &["CUDA_ERROR_STUB_LIBRARY", "CUDA_ERROR_NOT_INITIALIZED"],
        what: "there is no NVIDIA driver",
        remedy: "install it; --device cpu computes without one",
        left: Left::Nothing,
    },
    DeviceError {
        names: &[
            "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
            "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
            "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER",
            "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        ],
        what: "the NVIDIA driver is older than the CUDA toolkit of this build",
        remedy: "update the driver, or build with an older toolkit",
        left: Left::Nothing,
    },
    DeviceError {
        names: &["CUDA_ERROR_NO_BINARY_FOR_GPU", "CUDA_ERROR_INVALID_PTX"],
        what: "this build has no kernels for a GPU of this compute capability",
        remedy: "build it with the GPU's in CUDA_COMPUTE_CAP, such as 75 for 7.5, which `harness doctor` names",
        left: Left::Nothing,
    },
    DeviceError {
        names: &["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"],
        what: "the GPU has no memory left",
        remedy: "keep fewer activations there (--memory), run fewer cells at once, or take a smaller recipe.batch",
        left: Left::Memory,
    },
    DeviceError {
        names: &[
            "CUDA_ERROR_ILLEGAL_ADDRESS",
            "CUDA_ERROR_LAUNCH_FAILED",
            "CUDA_ERROR_LAUNCH_TIMEOUT",
            "CUDA_ERROR_ECC_UNCORRECTABLE",
            "CUDA_ERROR_HARDWARE_STACK_ERROR",
            "CUDA_ERROR_ILLEGAL_INSTRUCTION",
            "CUDA_ERROR_MISALIGNED_ADDRESS",
            "CUDA_ERROR_DEVICE_UNAVAILABLE",
            "CUDA_ERROR_CONTEXT_IS_DESTROYED",
            "CUDA_ERROR_NVLINK_UNCORRECTABLE",
            "CUDA_ERROR_EXTERNAL_DEVICE",
        ],
        what: "the GPU has stopped",
        remedy: "nothing more can be computed on it by this process: start the same command again, and see nvidia-smi and the system's log",
        left: Left::Nothing,
    },
];

impl DeviceError {
    /// The kind of the error whose text is `text`; `None` if it is none of a GPU, or of no kind that is known.
    pub fn of(text: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.names.iter().any(|name| text.contains(name)))
    }

    /// One line for a user: what happened and what to do; the first line of `text` where its kind is not known.
    pub fn explained(text: &str) -> String {
        let first = text.lines().next().unwrap_or_default();
        match Self::of(text) {
            Some(Self { names, what, remedy, .. }) => {
                let name = names.iter().find(|name| text.contains(*name)).unwrap_or(&names[0]);
                format!("{what} ({name}); {remedy}")
            }
            None => first.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_gpu_say_what_to_do() {
        let of_driver = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")\n   0: somewhere";
        assert_eq!(DeviceError::of(of_driver).unwrap().left, Left::Memory);
        let explained = DeviceError::explained(of_driver);
        assert!(explained.starts_with("the GPU has no memory left (CUDA_ERROR_OUT_OF_MEMORY); "), "{explained}");
        assert_eq!(DeviceError::of("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS)").unwrap().left, Left::Nothing);
        assert_eq!(DeviceError::explained("shape mismatch\nbacktrace"), "shape mismatch");
        // One name, one kind.
        let names: Vec<&str> = KINDS.iter().flat_map(|kind| kind.names).copied().collect();
        assert!(names.iter().all(|name| names.iter().filter(|other| other.contains(name)).count() == 1));
    }
}
