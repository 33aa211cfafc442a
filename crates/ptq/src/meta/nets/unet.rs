//! UNet (Ronneberger et al., arXiv 1505.04597), as MetaAug's published code has it (`unet/unet_parts.py`).

use super::config::{NormStatistics, Transform, Up};
use super::layers::{ConvLayer, DoubleConv, Doubling, halve, padded};
use super::{Net, Parameters, Size};
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
        let depth = config.depth;
        let width = |level: usize| width(config, level);
        let first = DoubleConv::new("inc", (channels, width(0)), parameters)?;
        let down = (1..=depth).map(|level| {
            let name = format!("down{level}.maxpool_conv.1");
            DoubleConv::new(&name, (width(level - 1), width(level)), parameters)
        });
        let down = down.collect::<Result<_>>()?;
        let mut up = Vec::with_capacity(depth);
        for step in 1..=depth {
            let level = depth - step;
            let (below, middle, out) = on_the_way_up(config, level);
            let doubling = Doubling::new(&format!("up{step}.up"), (below, below / 2), config.up, parameters)?;
            up.push((doubling, DoubleConv::through(&format!("up{step}.conv"), (below, middle, out), parameters)?));
        }
        Ok(Self { first, down, up })
    }

    pub fn forward(&self, x: &Tensor, statistics: NormStatistics) -> Result<Tensor> {
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

/// Channels of a level on the way down.
fn width(config: &Transform, level: usize) -> usize {
    let is_halved = config.up == Up::Bilinear && level == config.depth && level > 0;
    (config.base << level) / if is_halved { 2 } else { 1 }
}

/// Channels that the convolutions of a level on the way up read, and that the first and the second of them write.
fn on_the_way_up(config: &Transform, level: usize) -> (usize, usize, usize) {
    // What comes from below has as many channels as the skip, from a transposed convolution or from halved widths.
    let below = config.base << (level + 1);
    match config.up {
        Up::Transposed => (below, below / 2, below / 2),
        Up::Bilinear => (below, below / 2, if level == 0 { config.base } else { below / 4 }),
    }
}

/// Of the whole network.
pub(super) fn size(config: &Transform, channels: usize, pixels: usize) -> Size {
    let at = |level: usize| pixels >> (2 * level);
    let down = (1..=config.depth).fold(
        Size::default().double_conv((channels, config.base, config.base), pixels),
        |size, level| {
            let (above, own) = (width(config, level - 1), width(config, level));
            size.double_conv((above, own, own), at(level))
        },
    );
    let up = (0..config.depth).fold(down, |size, level| {
        let (below, middle, out) = on_the_way_up(config, level);
        let joined = size.doubling((below, below / 2), config.up, below, at(level));
        joined.double_conv((below, middle, out), at(level))
    });
    up.conv((config.base, channels), 1, pixels)
}

struct UNet {
    trunk: Trunk,
    last: ConvLayer,
}

pub(super) fn build(config: &Transform, channels: usize, parameters: &mut Parameters) -> Result<Box<dyn Net>> {
    let trunk = Trunk::new(config, channels, parameters)?;
    Ok(Box::new(UNet { trunk, last: ConvLayer::new("outc.conv", (config.base, channels), 1, true, parameters)? }))
}

impl Net for UNet {
    fn forward(&self, x: &Tensor, statistics: NormStatistics) -> Result<Tensor> {
        self.last.forward(&self.trunk.forward(x, statistics)?)
    }
}
