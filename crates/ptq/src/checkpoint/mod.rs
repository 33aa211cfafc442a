//! Quantized networks as files have them: named tensors, and a description that says what they are.
//!
//! ```text
//! QuantModel -> save -> Saved { Description, tensors }          (config.json, model.safetensors)
//! Description, tensors -> load -> QuantModel                    whose logits are the same, bit for bit
//! ```
//!
//! The tensors, by the names of the network's nodes:
//!
//! | tensor | type and shape | what it is |
//! |---|---|---|
//! | `NODE.weight.levels` | `U8`, bytes | levels `q` of a quantized weight, row-major, without gaps ([`packing`](crate::quant::packing)) |
//! | `NODE.weight.scale` | `F32`, (C_out) | `s`, the distance between two levels |
//! | `NODE.weight.zero_point` | `F32`, (C_out) | `z`, the level of 0, a whole number |
//! | `NODE.weight` | `F32` | a weight that is not quantized |
//! | `NODE.bias` | `F32`, (C_out) | with what folding BatchNorm adds |
//! | `NODE.gain` | `F32`, (C_out) | what a BatchNorm that is kept multiplies the convolution's output by |
//! | `NODE.{weight,bias,running_mean,running_var}` | `F32`, (C) | a BatchNorm that stands behind no convolution |
//! | `UNIT.activations.scale`, `UNIT.activations.zero_point` | `F32`, (n) | `s` and `z` of the unit's activation quantizers, in the order of its entries |
//!
//! A weight is `(q - z) * s`, in `f32` and in this order; its convolution is multiplied by the gain, where there is one, on the weight. A
//! quantized activation is `clip(round(x / s), -z, 2^b - 1 - z) * s`, halves rounded to even.

mod layers;
mod load;
mod save;
#[cfg(test)]
mod tests;

pub use layers::{Layer, layers};
pub use load::load;
pub use save::save;

use crate::recipe::{BatchNormMode, Bits};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of tensors and description. 1: first.
pub const FORMAT: u32 = 1;

/// Endings of the names of tensors.
const LEVELS: &str = "weight.levels";
const SCALE: &str = "weight.scale";
const ZERO_POINT: &str = "weight.zero_point";
const ACT_SCALE: &str = "activations.scale";
const ACT_ZERO_POINT: &str = "activations.zero_point";

/// A quantized network, to be written.
#[derive(Clone, Debug)]
pub struct Saved {
    pub description: Description,
    pub tensors: BTreeMap<String, Tensor>,
}

/// What the tensors of a quantized network are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Name in [`crate::arch::ARCHS`].
    pub architecture: String,
    pub classes: usize,
    /// Channels, height and width of an image.
    pub input: [usize; 3],
    /// What was asked for; each entry says what it has.
    pub bits: Bits,
    pub batch_norm: BatchNormMode,
    /// In the order in which they compute.
    pub units: Vec<UnitEntry>,
}

/// The tensors of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitEntry {
    pub name: String,
    pub weights: Vec<WeightEntry>,
    pub activations: Vec<ActEntry>,
}

/// The weight of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightEntry {
    pub node: String,
    pub shape: Vec<usize>,
    /// 2 to 8; `None`: not quantized.
    pub bits: Option<u32>,
}

/// The quantizer of one activation tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActEntry {
    /// `input` of the unit, or the node that computes it.
    pub tensor: String,
    pub bits: u32,
    /// Who reads or writes it through the quantizer.
    pub at: Vec<At>,
}

/// A place of an activation quantizer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct At {
    pub node: String,
    /// Which of the node's inputs; `None`: its output.
    pub input: Option<usize>,
}
