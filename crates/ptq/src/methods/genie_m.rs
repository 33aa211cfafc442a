//! Genie-M (arXiv 2212.04780, section 3.2): weight scales are learned together with the rounding.

use super::qdrop;
use crate::arch::ArchSpec;
use crate::ops::fake_quant::ClipOrder;
use crate::recipe::*;

/// The constants of the published code (`reconstruct.py`, `quantizer.py`).
pub fn recipe(arch: &ArchSpec) -> Recipe {
    Recipe {
        batch_norm: BatchNormMode::Kept,
        placement: Placement::Inputs,
        weight_search: RangeSearch::Genie,
        act_search: RangeSearch::Genie,
        act_search_images: 32,
        act_search_prefix: SearchPrefix::Reconstructed,
        act_clip: ClipOrder::ClipThenRound,
        // Units are found by their classes: a convolution outside of all blocks is one without its BatchNorm.
        conv_target: ConvTarget::Convolution,
        sampling: Sampling::Epochs,
        weight_scale_lr: 1e-4,
        lsq_gradient_factor: false,
        round_weight: 1.0,
        ..qdrop::recipe(arch)
    }
}
