//! The margin term: `T` must change the images.

use super::Images;
use crate::error::Result;
use crate::meta::config::Meta;
use crate::ops::relu::relu;
use candle_core::Tensor;

/// `max(0, eps - mean((T(x) - x)^2))`, in normalised pixels.
///
/// Result: scalar.  Gradient: to `T(x)`; zero once the mean squared change exceeds `eps`, and where nothing changes at
/// all, so that a transform that starts as the exact identity is not moved by this term alone.
/// Source: MetaAug (2407.14726), margin loss.
pub(super) fn loss(images: &Images, meta: &Meta) -> Result<Tensor> {
    let change = (images.t_x - images.x)?.sqr()?.mean_all()?;
    Ok(relu(&((change * -1.0)? + meta.eps)?)?)
}
