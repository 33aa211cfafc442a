//! What reconstruction starts from: quantizers with searched scales.

use crate::error::Result;
use crate::graph::Network;
use crate::quant::model::{Mode, QuantModel};
use crate::recipe::{Bits, Granularity, Prefix, Recipe, SearchPrefix, Setting};
use candle_core::Tensor;
use tracing::info_span;

/// What reconstruction starts from: `network` with its quantizers, weight scales searched, and activation ranges where
/// [`searches_first`]; a function of its arguments alone.
pub fn prepare(
    network: &Network,
    images: &Tensor,
    (bits, setting): (Bits, Setting),
    recipe: &Recipe,
) -> Result<QuantModel> {
    let mut model = QuantModel::new(network, bits, setting, recipe)?;
    if searches_first(recipe) {
        search_ranges(&mut model, images, recipe)?;
    }
    Ok(model)
}

/// Whether activation ranges are searched before anything is trained.
pub fn searches_first(recipe: &Recipe) -> bool {
    recipe.granularity == Granularity::None || (recipe.quantize_acts && !recipe.act_search_prefix.waits())
}

/// Searches the activation ranges of the whole network at once, on the first of the calibration images.
pub fn search_ranges(model: &mut QuantModel, images: &Tensor, recipe: &Recipe) -> Result<()> {
    let _span = info_span!("activation ranges").entered();
    let mode = match recipe.act_search_prefix {
        SearchPrefix::FullPrecision => Mode::of_prefix(Prefix::FullPrecision),
        _ => Mode::HARD,
    };
    let first = images.narrow(0, 0, recipe.act_search_images.min(images.dim(0)?))?;
    model.search_acts(&first, recipe.act_search, mode)
}
