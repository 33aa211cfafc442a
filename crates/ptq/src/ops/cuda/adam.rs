//! Adam in place.

use super::launch::{Module, arguments, blocks_of_each, launch, module};
use super::values::Values;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, CudaStorage, Layout, Result, bail};

const ADAM: Module = module!("adam");

/// Running means of a gradient and of its square.
pub struct Moments {
    m: CudaSlice<f32>,
    v: CudaSlice<f32>,
}

impl Moments {
    /// Of nothing yet.
    pub fn new(len: usize, device: &CudaDevice) -> Result<Self> {
        Ok(Self { m: device.alloc_zeros(len)?, v: device.alloc_zeros(len)? })
    }
}

/// One step of the contiguous parameter in `p`.
pub fn adam(
    (p, layout): (&mut CudaStorage, &Layout),
    moments: &mut Moments,
    g: &Values,
    step_size: f32,
    correction: f32,
) -> Result<()> {
    let p = Values::<f32>::of(p, layout)?;
    if p.len() != g.len() || p.len() != moments.m.len() {
        bail!("adam: {} parameters, {} gradients", p.len(), g.len());
    }
    let arguments = arguments![&p, &moments.m, &moments.v, g, step_size, correction, p.len() as u64];
    // SAFETY: all four have the same length, and parameter and moments are borrowed for writing.
    unsafe { launch(g.device, &ADAM, "adam", blocks_of_each(p.len()), &arguments) }
}
