//! BRECQ (arXiv 2102.05426): rounding learned block by block, then activation scales in a phase of their own.

use super::qdrop;
use crate::arch::{ArchSpec, Family};
use crate::recon::recipe::*;

/// The constants of the published code (`main_imagenet.py`).
pub fn recipe(arch: &ArchSpec) -> Recipe {
    Recipe {
        // In ResNets the published code sets 8 bits on a quantizer that is switched off.
        classifier_input_8bit: arch.family != Family::ResNet,
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
