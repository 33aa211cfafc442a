//! The quantizer of one activation tensor.

use super::range_search::Range;
use crate::error::{Error, Result};
use crate::ops::fake_quant::{ClipOrder, FakeQuant, Mask, fake_quant};
use candle_core::{DType, Device, Tensor, Var};

/// Quantizes an activation per tensor, with a scale that can be learned.
#[derive(Clone, Debug)]
pub struct ActQuantizer {
    pub bits: u32,
    pub clip: ClipOrder,
    /// Whether the gradient of the scale is multiplied by `1 / sqrt(numel * q_max)` (LSQ), numel with the batch.
    pub gradient_factor: bool,
    /// One element.
    pub scale: Var,
    /// `[-zero_point, 2^b - 1 - zero_point]`; `None` until the range is searched.
    levels: Option<(f32, f32)>,
}

impl ActQuantizer {
    /// A quantizer whose range is yet to be searched.
    pub fn new(bits: u32, clip: ClipOrder, gradient_factor: bool) -> Result<Self> {
        let scale = Var::from_tensor(&Tensor::ones(1, DType::F32, &Device::Cpu)?)?;
        Ok(Self { bits, clip, gradient_factor, scale, levels: None })
    }

    /// From here on it quantizes tensors on `device`.
    pub fn set_range(&mut self, range: Range, device: &Device) -> Result<()> {
        self.scale = Var::from_tensor(&Tensor::from_slice(&[range.scale], 1, device)?)?;
        self.levels = Some(range.levels(self.bits));
        Ok(())
    }

    /// What the range is now; `None` until it is searched.
    pub fn range(&self) -> Result<Option<Range>> {
        let scale = self.scale.flatten_all()?.get(0)?.to_scalar::<f32>()?;
        Ok(self.levels.map(|(lowest, _)| Range { scale, zero_point: -lowest }))
    }

    pub fn is_ready(&self) -> bool {
        self.levels.is_some()
    }

    /// A quantizer of its own with the same values, as `dtype`.
    pub fn copy(&self, dtype: DType) -> Result<Self> {
        let scale = Var::from_tensor(&self.scale.as_detached_tensor().copy()?.to_dtype(dtype)?)?;
        Ok(Self { scale, ..self.clone() })
    }

    /// Quantizes the elements of `x` that `mask` selects.
    pub fn forward(&self, x: &Tensor, mask: Mask) -> Result<Tensor> {
        Ok(fake_quant(x, &self.scale, self.fake_quant(x, mask)?)?)
    }

    /// Quantizes all of `x`; no gradient flows to the scale.
    pub fn forward_fixed(&self, x: &Tensor) -> Result<Tensor> {
        Ok(fake_quant(x, &self.scale.as_detached_tensor(), self.fake_quant(x, Mask::All)?)?)
    }

    /// The operation that [`Self::forward`] applies to `x`.
    pub fn fake_quant(&self, x: &Tensor, mask: Mask) -> Result<FakeQuant> {
        let Some(levels) = self.levels else {
            return Err(Error::Shape { op: "activation quantizer", problem: "its range was not searched".to_string() });
        };
        let scale_gradient_factor = match self.gradient_factor {
            true => 1.0 / (x.elem_count() as f64 * f64::from(levels.1 - levels.0)).sqrt() as f32,
            false => 1.0,
        };
        Ok(FakeQuant { levels, clip: self.clip, scale_gradient_factor, mask })
    }
}
