//! What operations that quantize are told: levels, order of clipping and rounding, regulariser.

use super::mask::Mask;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The quantizer's levels and what becomes of its gradients.
#[derive(Clone, Debug)]
pub struct FakeQuant {
    /// Lowest and highest integer level, `-zero_point` and `2^b - 1 - zero_point`.
    pub levels: (f32, f32),
    pub clip: ClipOrder,
    /// Factor of the gradient with respect to `scale`.
    pub scale_gradient_factor: f32,
    /// Which elements are quantized.
    pub mask: Mask,
}

/// Order of rounding and clipping; the values are the same, the straight-through gradient is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClipOrder {
    /// `round(clip(x / scale))`: gradient where `x / scale` is in range.
    ClipThenRound,
    /// `clip(round(x / scale))`: gradient where the rounded value is in range.
    RoundThenClip,
}

/// What of a rounded weight does not change while its rounding is learned.
#[derive(Clone, Debug)]
pub struct Levels {
    /// `floor(W / scale_0)`, of the weight's shape, fixed when the scales were searched; contiguous `f32`.
    pub floor: Tensor,
    /// `(C_out)`, per output channel; contiguous `f32`.
    pub zero_point: Tensor,
    /// `2^b - 1`.
    pub highest: f32,
}

/// `weight * sum(1 - |2 h - 1|^beta)`: pulls the rounding to 0 or 1.
#[derive(Clone, Copy, Debug)]
pub struct Regulariser {
    pub beta: f64,
    pub weight: f64,
}
