//! UNet (Ronneberger et al., arXiv 1505.04597), as MetaAug's published code has it (`unet/unet_parts.py`).

use super::config::{Statistics, Transform, Up};
use super::layers::{Conv, DoubleConv, Doubling, halve, padded};
use super::{Net, Parameters};
use crate::error::Result;
use crate::ops::layout::join_channels;
use candle_core::Tensor;

/// The whole network but its last layer: `(N, C, H, W)` to `(N, base, H, W)`.
pub(super) struct Trunk {
    first: DoubleConv,
    down: Vec<DoubleConv>,
    up: Vec<(Doubling, DoubleConv)>,
}

impl Trunk {
    /// Level `i` has `base * 2^i` channels; with bilinear doubling the lowest has as many as the one above it.
    pub fn new(config: &Transform, channels: usize, parameters: &mut Parameters) -> Result<Self> {
        let (base, depth) = (config.base, config.depth);
        let halved = if config.up == Up::Bilinear { 2 } else { 1 };
        let width = |level: usize| (base << level) / if level == depth && depth > 0 { halved } else { 1 };
        let first = DoubleConv::new("inc", (channels, width(0)), parameters)?;
        let down = (1..=depth).map(|level| {
            let name = format!("down{level}.maxpool_conv.1");
            DoubleConv::new(&name, (width(level - 1), width(level)), parameters)
        });
        let down = down.collect::<Result<_>>()?;
        let mut up = Vec::with_capacity(depth);
        for step in 1..=depth {
            let level = depth - step;
            // What comes from below: as many channels as the skip, from a transposed convolution or from halved widths.
            let below = base << (level + 1);
            let out = if level == 0 { base } else { (base << level) / halved };
            let doubling = Doubling::new(&format!("up{step}.up"), (below, below / 2), config.up, parameters)?;
            let middle = if config.up == Up::Bilinear { below / 2 } else { out };
            up.push((doubling, DoubleConv::through(&format!("up{step}.conv"), (below, middle, out), parameters)?));
        }
        Ok(Self { first, down, up })
    }

    pub fn forward(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        let mut levels = vec![self.first.forward(x, statistics)?];
        for layer in &self.down {
            levels.push(layer.forward(&halve(&levels[levels.len() - 1])?, statistics)?);
        }
        let mut y = levels.swap_remove(levels.len() - 1);
        for ((doubling, conv), skip) in self.up.iter().zip(levels.iter().rev()) {
            let (_, _, height, width) = skip.dims4()?;
            let below = padded(&doubling.forward(&y)?, (height, width))?;
            y = conv.forward(&join_channels(skip, &below)?, statistics)?;
        }
        Ok(y)
    }
}

struct UNet {
    trunk: Trunk,
    last: Conv,
}

pub(super) fn build(config: &Transform, channels: usize, parameters: &mut Parameters) -> Result<Box<dyn Net>> {
    let trunk = Trunk::new(config, channels, parameters)?;
    Ok(Box::new(UNet { trunk, last: Conv::new("outc.conv", (config.base, channels), 1, true, parameters)? }))
}

impl Net for UNet {
    fn forward(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        self.last.forward(&self.trunk.forward(x, statistics)?)
    }
}
