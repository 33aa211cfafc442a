//! Mean squared difference of features: the first alternative to distribution preservation in MetaAug's ablation.

use super::Features;
use crate::error::Result;
use candle_core::Tensor;

/// `mean((F(T(x)) - F(x))^2)` over images and features.
///
/// Result: scalar.  Gradient: to the features of `T(x)`.
pub(super) fn loss(features: &Features) -> Result<Tensor> {
    Ok((features.of_t_x - features.of_x.detach())?.sqr()?.mean_all()?)
}
