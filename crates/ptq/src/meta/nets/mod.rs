//! The transform networks: each maps images `(N, C, H, W)` to images of the same shape.

mod autoencoder;
mod config;
mod identity;
mod layers;
mod parameters;
mod photometric;
mod residual_unet;
mod size;
mod spatial;
mod unet;

pub use config::{NetName, NormStatistics, Transform, TransformOverride, Up};
pub use parameters::Parameters;
pub use size::Size;

use crate::error::{Error, Result};
use crate::rng::Stream;
use candle_core::{DType, Device, Tensor};

/// A transform network.
pub trait Net {
    /// `x` `(N, C, H, W)` transformed; [`NormStatistics::Batch`] also updates the running statistics.
    ///
    /// Gradient (first order): to `x` and to the parameters.
    fn forward(&self, x: &Tensor, statistics: NormStatistics) -> Result<Tensor>;
}

/// One row per transform network.
pub struct NetSpec {
    /// As written in a grid.
    pub name: &'static str,
    /// Whether it has something to learn.
    pub is_trainable: bool,
    /// Whether it has to be taught to reproduce its input; the others start as the identity.
    pub needs_warm_up: bool,
    /// How often the image is halved at a given depth.
    pub halvings: fn(depth: usize) -> usize,
    /// What it holds for images of so many channels and pixels: adds up what `build` lists.
    pub size: fn(&Transform, channels: usize, pixels: usize) -> Size,
    /// Lists its layers, taking their parameters.
    build: fn(&Transform, channels: usize, &mut Parameters) -> Result<Box<dyn Net>>,
}

/// The published network.
pub const UNET: NetSpec = NetSpec {
    name: "unet",
    is_trainable: true,
    needs_warm_up: true,
    halvings: |depth| depth,
    size: unet::size,
    build: unet::build,
};

/// The spatial transformer.
pub const SPATIAL: NetSpec = NetSpec {
    name: "spatial",
    is_trainable: true,
    needs_warm_up: false,
    halvings: |_| 0,
    size: spatial::size,
    build: spatial::build,
};

/// Every known transform network.
pub const NETS: &[NetSpec] = &[
    UNET,
    NetSpec {
        name: "residual-unet",
        is_trainable: true,
        needs_warm_up: false,
        halvings: |depth| depth,
        size: unet::size,
        build: residual_unet::build,
    },
    NetSpec {
        name: "autoencoder",
        is_trainable: true,
        needs_warm_up: true,
        halvings: |depth| depth,
        size: autoencoder::size,
        build: autoencoder::build,
    },
    NetSpec {
        name: "photometric",
        is_trainable: true,
        needs_warm_up: false,
        halvings: |_| 0,
        size: photometric::size,
        build: photometric::build,
    },
    SPATIAL,
    NetSpec {
        name: "identity",
        is_trainable: false,
        needs_warm_up: false,
        halvings: |_| 0,
        size: identity::size,
        build: identity::build,
    },
];

/// A transform network with its parameters.
pub struct TransformNet {
    pub config: Transform,
    pub parameters: Parameters,
    net: Box<dyn Net>,
}

impl TransformNet {
    /// With fresh parameters, drawn from `stream`.
    pub fn new(config: &Transform, channels: usize, stream: Stream, dtype: DType, device: &Device) -> Result<Self> {
        let mut parameters = Parameters::new(stream, dtype, device);
        let net = (config.net.0.build)(config, channels, &mut parameters)?;
        Ok(Self { config: config.clone(), parameters, net })
    }

    /// See [`Net::forward`].
    pub fn forward(&self, x: &Tensor, statistics: NormStatistics) -> Result<Tensor> {
        let y = self.net.forward(x, statistics)?;
        match y.shape() == x.shape() {
            true => Ok(y),
            false => {
                Err(Error::Shape { op: "transform network", problem: format!("{:?} became {:?}", x.dims(), y.dims()) })
            }
        }
    }

    pub fn is_trainable(&self) -> bool {
        self.config.net.0.is_trainable
    }
}

/// Why images of `height` by `width` pixels are too small for `config`, if they are.
pub fn too_small(config: &Transform, height: usize, width: usize) -> Option<String> {
    let halvings = (config.net.0.halvings)(config.depth);
    let side = height.min(width);
    (u32::try_from(halvings).is_ok_and(|halvings| side.checked_shr(halvings).unwrap_or(0) == 0)).then(|| {
        format!(
            "depth {} halves images of {height} by {width} pixels to nothing: at most {} for them",
            config.depth,
            side.max(1).ilog2()
        )
    })
}

#[cfg(test)]
mod tests;
