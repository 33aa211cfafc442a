//! Rounding to nearest from searched scales: what every reconstruction method starts from.

use super::qdrop;
use crate::arch::ArchSpec;
use crate::recipe::*;

/// QDrop's starting point, not reconstructed; what only reconstruction would read is as it was before it could be chosen.
pub fn recipe(arch: &ArchSpec) -> Recipe {
    Recipe {
        granularity: Granularity::None,
        conv_target: ConvTarget::default(),
        classifier_mix: ClassifierMix::default(),
        ..qdrop::recipe(arch)
    }
}
