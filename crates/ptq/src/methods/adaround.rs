//! AdaRound (arXiv 2004.10568): rounding learned layer by layer, scales fixed.

use super::brecq;
use crate::arch::ArchSpec;
use crate::recipe::*;

/// The constants of the paper (section 5); activation ranges are searched once the weights are quantized.
pub fn recipe(arch: &ArchSpec) -> Recipe {
    Recipe {
        granularity: Granularity::Layer,
        placement: Placement::Outputs,
        classifier_input_8bit: true,
        reconstruct_stem: true,
        round_weight: 0.01,
        act_phase_frac: 0.0,
        ..brecq::recipe(arch)
    }
}
