//! Distribution preservation: probabilistic knowledge transfer (Passalis and Tefas, arXiv 1803.10837) between the features
//! of transformed and of original images.

use super::Features;
use crate::error::Result;
use candle_core::{D, Tensor};

/// Keeps norms and logarithms finite; the published code's value.
const EPS: f64 = 1e-7;

/// `mean over all pairs of P_x log((P_x + 1e-7) / (P_t + 1e-7))`, where row `i` of `P` holds the cosine similarities of
/// image `i` to all images of the batch, mapped to `[0, 1]` and normalised to sum 1.
///
/// Result: scalar.  Gradient: to the features of `T(x)`.  Source: MetaAug, equation of `L_DP`; published `pkt_loss`.
pub(super) fn loss(features: &Features) -> Result<Tensor> {
    let p_x = neighbourhoods(&features.of_x.detach())?;
    let p_t = neighbourhoods(features.of_t_x)?;
    let log_ratio = ((&p_x + EPS)?.log()? - (p_t + EPS)?.log()?)?;
    Ok((p_x * log_ratio)?.mean_all()?)
}

/// `P` of features `(N, F)`: `(N, N)`.
fn neighbourhoods(features: &Tensor) -> Result<Tensor> {
    let norm = (features.sqr()?.sum_keepdim(D::Minus1)?.sqrt()? + EPS)?;
    let directions = features.broadcast_div(&norm)?;
    let similarity = ((directions.matmul(&directions.t()?)? + 1.0)? / 2.0)?;
    Ok(similarity.broadcast_div(&similarity.sum_keepdim(D::Minus1)?)?)
}
