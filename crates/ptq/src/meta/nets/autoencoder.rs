//! A convolutional autoencoder: a UNet without skip connections.

use super::config::{Statistics, Transform};
use super::layers::{Conv, DoubleConv, Doubling, halve, padded};
use super::{Net, Parameters};
use crate::error::Result;
use candle_core::Tensor;

struct Autoencoder {
    first: DoubleConv,
    down: Vec<DoubleConv>,
    up: Vec<(Doubling, DoubleConv)>,
    last: Conv,
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
    Ok(Box::new(Autoencoder { first, down, up, last: Conv::new("last", (base, channels), 1, true, parameters)? }))
}

impl Net for Autoencoder {
    fn forward(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
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
