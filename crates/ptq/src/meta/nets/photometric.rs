//! One affine map per channel, the same for all images: `T(x)_c = gain_c x_c + offset_c`; starts as the identity.

use super::config::{NormStatistics, Transform};
use super::{Net, Parameters, Size};
use crate::error::Result;
use crate::ops::tape::plain;
use candle_core::{Tensor, Var};

struct Photometric {
    gain: Var,
    offset: Var,
}

pub(super) fn build(_config: &Transform, channels: usize, parameters: &mut Parameters) -> Result<Box<dyn Net>> {
    Ok(Box::new(Photometric {
        gain: parameters.constant("gain".into(), &[1, channels, 1, 1], 1.0)?,
        offset: parameters.constant("offset".into(), &[1, channels, 1, 1], 0.0)?,
    }))
}

pub(super) fn size(_config: &Transform, channels: usize, pixels: usize) -> Size {
    Size::new(2 * channels, 2 * channels * pixels)
}

impl Net for Photometric {
    fn forward(&self, x: &Tensor, _statistics: NormStatistics) -> Result<Tensor> {
        Ok(plain::broadcast_add(&plain::broadcast_mul(x, self.gain.as_tensor())?, self.offset.as_tensor())?)
    }
}
