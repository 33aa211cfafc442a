//! Getting to a device what the host made, while the device computes.

use super::pinned::Pinned;
use candle_core::{Device, Result, Tensor, bail};

/// Buffers that a GPU copies from; one is filled while it reads from the other.
const BUFFERS: usize = 2;

/// Puts batches of one kind on a device, one after the other.
pub struct Upload {
    device: Device,
    /// The next to be filled first.
    buffers: Vec<Pinned>,
}

impl Upload {
    /// To `device`.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), buffers: Vec::new() }
    }

    /// `values` as a tensor of these dimensions. A GPU gets it when its turn comes; nobody waits for that.
    ///
    /// Errors: another number of values; no memory on the device.
    pub fn tensor(&mut self, values: Vec<f32>, dims: &[usize]) -> Result<Tensor> {
        if values.len() != dims.iter().product::<usize>() {
            bail!("{} values for {dims:?}", values.len());
        }
        let fits = |buffer: &Pinned| buffer.dims()[1..] == dims[1..] && buffer.dims()[0] >= dims[0];
        let filled = match self.buffers.len() == BUFFERS && fits(&self.buffers[0]) {
            true => Some(self.buffers.remove(0)),
            false => Pinned::new(dims, &self.device)?,
        };
        let Some(mut buffer) = filled else { return Tensor::from_vec(values, dims, &self.device) };
        buffer.fill(&values)?;
        let tensor = buffer.narrow(0, dims[0])?;
        self.buffers.push(buffer);
        if self.buffers.len() > BUFFERS {
            self.buffers.remove(0);
        }
        Ok(tensor)
    }
}
