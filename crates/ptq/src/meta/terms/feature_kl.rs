//! Kullback-Leibler divergence of features: the second alternative to distribution preservation in MetaAug's ablation.

use super::Features;
use crate::error::Result;
use crate::ops::divergence::kl_divergence;
use candle_core::Tensor;

/// `KL(softmax(F(x)) || softmax(F(T(x))))` over the features of each image, mean over the images.
///
/// Result: scalar.  Gradient: to the features of `T(x)`.
pub(super) fn loss(features: &Features) -> Result<Tensor> {
    kl_divergence(&features.of_x.detach(), features.of_t_x)
}
