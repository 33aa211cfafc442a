//! What of a transform network a grid can set: the table `[transform]` of a cell.

use super::{NETS, NetSpec, UNET};
use crate::recipe::{is_zero, overridable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

overridable! {
    /// The transform network `T` and its warm-up to the identity.
    Transform, TransformOverride {
        /// Which network.
        net: NetName,
        /// Channels of its first layer; each level of a UNet doubles them.
        base: usize => Bounds::Count(1, 1 << 12),
        /// Number of levels, each of which halves the image.
        depth: usize => Bounds::Count(0, 12),
        /// How a UNet goes back up.
        up: Up,
        /// Adam steps that teach `T` to reproduce the calibration images before it is used.
        warmup_iterations: usize => Bounds::counts_from(0),
        /// Learning rate of these steps, with cosine decay to 0.
        warmup_lr: f64 => Bounds::From(0.0),
        /// Images per warm-up step.
        warmup_batch: usize => Bounds::counts_from(1),
        /// The statistics with which `T`'s BatchNorm layers normalise the images that reconstruction sees.
        statistics: NormStatistics,
        /// How far a spatial transformer's affine map starts from the identity: each of its six numbers is off by up to this, uniformly.
        /// In coordinates from -1 to 1, so that 0.1 is a twentieth of the image.
        #[serde(default, skip_serializing_if = "is_zero")]
        start_warp: f64 => Bounds::From(0.0),
    }
}

impl Transform {
    /// The published UNet (`unet/unet_model.py` of the published code).
    ///
    /// Deviates: the published warm-up weights are a file whose training is not described; ours are trained on the
    /// calibration images.
    pub fn published() -> Self {
        Self {
            net: NetName(&UNET),
            base: 64,
            depth: 4,
            up: Up::Transposed,
            warmup_iterations: 500,
            warmup_lr: 1e-3,
            warmup_batch: 32,
            statistics: NormStatistics::Batch,
            start_warp: 0.0,
        }
    }
}

/// A row of [`NETS`], by name.
#[derive(Clone, Copy)]
pub struct NetName(pub &'static NetSpec);

impl std::fmt::Debug for NetName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

impl PartialEq for NetName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Serialize for NetName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name)
    }
}

impl<'de> Deserialize<'de> for NetName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        NETS.iter().find(|net| net.name == name).map(NetName).ok_or_else(|| {
            let known: Vec<String> = NETS.iter().map(|net| format!("`{}`", net.name)).collect();
            serde::de::Error::custom(format!("unknown transform net `{name}`, expected one of {}", known.join(", ")))
        })
    }
}

/// How a UNet doubles the size of its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Up {
    /// Transposed 2x2 convolution with stride 2.
    Transposed,
    /// Bilinear interpolation, corners aligned.
    Bilinear,
}

/// What a BatchNorm layer normalises with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormStatistics {
    /// Those of the batch, as in training.
    Batch,
    /// The running averages.
    Running,
}
