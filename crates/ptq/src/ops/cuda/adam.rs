//! Adam in place, several parameters at a time.

use super::launch::{MOST, Module, Parameters, address, arguments, blocks_of_each, launch, module, u32_of};
use super::values::with_values;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, Device, Result, Tensor, Var, bail};

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

    /// Copied to the CPU.
    pub fn read(&self, device: &CudaDevice) -> Result<[Tensor; 2]> {
        let copy = |of: &CudaSlice<f32>| Tensor::from_vec(device.clone_dtoh(of)?, of.len(), &Device::Cpu);
        Ok([copy(&self.m)?, copy(&self.v)?])
    }

    /// Copied from the CPU.
    pub fn written([m, v]: [&Tensor; 2], device: &CudaDevice) -> Result<Self> {
        let there = |values: &Tensor| device.clone_htod(&values.to_vec1::<f32>()?);
        Ok(Self { m: there(m)?, v: there(v)? })
    }
}

/// One step of the contiguous parameters of one device, each with its moments, gradient and step size.
///
/// Nobody else may compute with the moments meanwhile: all work of a device goes to one stream, in order.
pub fn adam(steps: &[(&Var, &Moments, Tensor, f32)], correction: f32, factor: f32) -> Result<()> {
    for steps in steps.chunks(MOST) {
        let mut all = Box::new(Parameters {
            p: [0; MOST],
            m: [0; MOST],
            v: [0; MOST],
            g: [0; MOST],
            step_size: [0.0; MOST],
            end: [0; MOST],
            len: [0; MOST],
            count: steps.len() as u32,
        });
        let mut blocks = 0;
        for (i, (var, moments, gradient, step_size)) in steps.iter().enumerate() {
            let where_and_len =
                |tensor: &Tensor| with_values::<f32, _>(tensor, |of| Ok((address(&of.elements), of.len())));
            let ((p, len), (g, len_g)) = (where_and_len(var)?, where_and_len(gradient)?);
            if len != len_g || len != moments.m.len() {
                bail!("adam: {len} parameters, {len_g} gradients");
            }
            blocks += blocks_of_each(len);
            (all.p[i], all.g[i]) = (p, g);
            (all.m[i], all.v[i]) = (address(&moments.m), address(&moments.v));
            (all.step_size[i], all.end[i], all.len[i]) = (*step_size, u32_of(blocks)?, u32_of(len)?);
        }
        if let Some((var, ..)) = steps.first() {
            let device = var.device().as_cuda_device()?;
            let arguments = arguments![all, correction, factor];
            // SAFETY: parameters, moments and gradients have the same length each, and the caller holds them.
            unsafe { launch(device, &ADAM, "adam", blocks, &arguments)? };
        }
    }
    Ok(())
}
