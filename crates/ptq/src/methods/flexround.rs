//! FlexRound (arXiv 2306.00317): weights are divided by learned numbers before they are rounded, in QDrop's reconstruction ("Q + FlexRound").

use super::qdrop;
use crate::arch::ArchSpec;
use crate::recipe::*;

/// QDrop's constants, as in the paper; what is learned of weights, scales among it, has no regulariser.
///
/// The paper tunes the learning rate by network and bit width, and its published code is of language models: this is QDrop's. A third of it
/// to ten times as much makes a difference of 0.2 points at most to ResNet-20 (`experiments/fashion/flexround.toml`).
pub fn recipe(arch: &ArchSpec) -> Recipe {
    Recipe { rounding: RoundingName::Flexround, round_weight: 0.0, ..qdrop::recipe(arch) }
}
