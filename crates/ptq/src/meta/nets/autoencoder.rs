//! A convolutional autoencoder: a UNet without skip connections.

use super::config::{NormStatistics, Transform};
use super::layers::{ConvLayer, DoubleConv, Doubling, halve, padded};
use super::{Net, Parameters, Size};
use crate::error::Result;
use candle_core::Tensor;

struct Autoencoder {
    first: DoubleConv,
    down: Vec<DoubleConv>,
    up: Vec<(Doubling, DoubleConv)>,
    last: ConvLayer,
}

/// Level `i` has `base * 2^i` channels.
pub(super) fn build(config: &Transform, channels: usize, parameters: &mut Parameters) -> Result<Box<dyn Net>> {
    let (base, depth) = (config.base, config.depth);
    let first = DoubleConv::new("first", (channels, base), parameters)?;
    let mut down = Vec::with_capacity(depth);
    for level in 1..=depth {
        down.push(DoubleConv::new(&format!("down{level}"), (base << (level - 1), base << level), parameters)?);
    }
    let mut up = Vec::with_capacity(depth);
    for level in (0..depth).rev() {
        let (below, own) = (base << (level + 1), base << level);
        let doubling = Doubling::new(&format!("up{level}.double"), (below, below), config.up, parameters)?;
        up.push((doubling, DoubleConv::new(&format!("up{level}"), (below, own), parameters)?));
    }
    Ok(Box::new(Autoencoder { first, down, up, last: ConvLayer::new("last", (base, channels), 1, true, parameters)? }))
}

pub(super) fn size(config: &Transform, channels: usize, pixels: usize) -> Size {
    let at = |level: usize| pixels >> (2 * level);
    let first = Size::default().double_conv((channels, config.base, config.base), pixels);
    let levels = (1..=config.depth).fold(first, |size, level| {
        let (above, own) = (config.base << (level - 1), config.base << level);
        let down = size.double_conv((above, own, own), at(level));
        down.doubling((own, own), config.up, own, at(level - 1)).double_conv((own, above, above), at(level - 1))
    });
    levels.conv((config.base, channels), 1, pixels)
}

impl Net for Autoencoder {
    fn forward(&self, x: &Tensor, statistics: NormStatistics) -> Result<Tensor> {
        let mut y = self.first.forward(x, statistics)?;
        let mut sizes = Vec::with_capacity(self.down.len());
        for layer in &self.down {
            let (_, _, height, width) = y.dims4()?;
            sizes.push((height, width));
            y = layer.forward(&halve(&y)?, statistics)?;
        }
        for ((doubling, conv), size) in self.up.iter().zip(sizes.iter().rev()) {
            y = conv.forward(&padded(&doubling.forward(&y)?, *size)?, statistics)?;
        }
        self.last.forward(&y)
    }
}
