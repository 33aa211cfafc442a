//! The mini-batches that one step of training `T` looks at.

use crate::error::Result;
use crate::ops::device::put;
use crate::ops::tape::plain;
use crate::quant::model::Masks;
use candle_core::Tensor;

/// What one step looks at.
pub struct Sample<'a> {
    /// Step of the unit (from 1).
    pub t: usize,
    /// Original images `(N, C, H, W)`.
    pub x: &'a Tensor,
    /// Input of the unit for other original images, from the quantized prefix.
    pub outer_input: &'a Tensor,
    /// Their logits in full precision, and their labels.
    pub outer_logits: &'a Tensor,
    pub outer_labels: &'a [u32],
    /// How transformed and original images are mixed up for terms that ask for it.
    pub mixes: &'a [Mix; 2],
    /// One per virtual update.
    pub inner_masks: &'a [&'a dyn Masks],
    pub outer_masks: &'a dyn Masks,
    /// The target of the inner loss, a constant: for central differences, the one at the point they are taken around.
    /// `None`: what the full-precision unit gives for the transformed images.
    pub target: Option<Tensor>,
}

/// A mix-up (Zhang et al., arXiv 1710.09412): `share * x + (1 - share) * x[partners]`.
#[derive(Clone, Debug)]
pub struct Mix {
    pub share: f64,
    pub partners: Vec<u32>,
}

impl Mix {
    /// `share * x + (1 - share) * x[partners]`, the shape of `x` `(N, ...)`; linear, so the gradient goes to both images of each pair.
    ///
    /// Errors: other than `N` partners, or one that is not an image of `x`.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let partners = put(&self.partners, self.partners.len(), x.device())?;
        let theirs = plain::affine(&plain::index_rows(x, &partners)?, 1.0 - self.share, 0.0)?;
        Ok(plain::add(&plain::affine(x, self.share, 0.0)?, &theirs)?)
    }
}
