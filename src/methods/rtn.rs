//! Rounding to nearest from searched scales: what every reconstruction method starts from.

use super::qdrop;
use crate::arch::ArchSpec;
use crate::recon::recipe::*;

/// QDrop's starting point, not reconstructed.
pub fn recipe(arch: &ArchSpec) -> Recipe {
    Recipe { granularity: Granularity::None, ..qdrop::recipe(arch) }
}
