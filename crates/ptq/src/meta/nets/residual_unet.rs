//! A UNet that predicts a change of the image: `T(x) = x + UNet(x)`; its last layer starts at zero, so it starts as the
//! identity.

use super::config::{NormStatistics, Transform};
use super::layers::ConvLayer;
use super::unet::Trunk;
use super::{Net, Parameters};
use crate::error::Result;
use crate::ops::tape::plain;
use candle_core::Tensor;

struct ResidualUNet {
    trunk: Trunk,
    last: ConvLayer,
}

pub(super) fn build(config: &Transform, channels: usize, parameters: &mut Parameters) -> Result<Box<dyn Net>> {
    let trunk = Trunk::new(config, channels, parameters)?;
    Ok(Box::new(ResidualUNet { trunk, last: ConvLayer::zero("outc.conv", (config.base, channels), 1, parameters)? }))
}

impl Net for ResidualUNet {
    fn forward(&self, x: &Tensor, statistics: NormStatistics) -> Result<Tensor> {
        Ok(plain::add(x, &self.last.forward(&self.trunk.forward(x, statistics)?)?)?)
    }
}
