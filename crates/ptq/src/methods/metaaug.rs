//! MetaAug (arXiv 2407.14726): Genie-M's reconstruction on original and transformed images.

use super::genie_m;
use crate::arch::ArchSpec;
use crate::recipe::*;

/// The constants of the published code (`reconstruct_block.py`, `train_meta.py`), which copies Genie's but for the first pass over a
/// unit: it comes before the unit is in training mode.
pub fn recipe(arch: &ArchSpec) -> Recipe {
    Recipe { act_search_prefix: SearchPrefix::ReconstructedNearest, ..genie_m::recipe(arch) }
}
