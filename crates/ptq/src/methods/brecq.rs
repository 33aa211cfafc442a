//! BRECQ (arXiv 2102.05426): rounding learned block by block, then activation scales in a phase of their own.

use super::qdrop;
use crate::arch::{ArchSpec, Family};
use crate::recipe::*;

/// The constants of the published code (`main_imagenet.py`).
pub fn recipe(arch: &ArchSpec) -> Recipe {
    // The published code knows the blocks of the other families only: it takes MNasNet for a list of layers, quantizes what each
    // of them computes, and no sum.
    let (granularity, placement) = match arch.family {
        Family::MnasNet => (Granularity::Layer, Placement::LayerOutputs),
        Family::ResNet | Family::RegNet | Family::MobileNetV2 => (Granularity::Block, Placement::Outputs),
    };
    Recipe {
        granularity,
        placement,
        // Behind residual blocks the published code sets 8 bits on a quantizer that is switched off, that of the last
        // convolution in front of the sum.
        classifier_input_8bit: !matches!(arch.family, Family::ResNet | Family::RegNet),
        weight_search: RangeSearch::Brecq,
        act_search: RangeSearch::Brecq,
        act_search_images: 64,
        act_search_prefix: SearchPrefix::Quantized,
        unit_input: Prefix::QuantizedWeights,
        quantize_acts: false,
        reconstruct_stem: false,
        sampling: Sampling::Permutation,
        drop_inside: 0.0,
        drop_input: 0.0,
        act_scale_lr: 0.0,
        lsq_gradient_factor: false,
        act_phase_frac: 0.25,
        ..qdrop::recipe(arch)
    }
}
