//! What a unit is trained on.

use super::activations::Activations;
use crate::error::Result;

/// A unit's inputs and targets, one row per image.
pub struct Rows {
    pub x_fp: Activations,
    pub x_q: Activations,
    pub y_fp: Activations,
    /// Of the full-precision network, for recipes with a prediction difference.
    pub logits: Option<Activations>,
}

impl Rows {
    /// Followed by `others`.
    pub fn and(&self, others: &Rows) -> Result<Rows> {
        Ok(Rows {
            x_fp: self.x_fp.and(&others.x_fp)?,
            x_q: self.x_q.and(&others.x_q)?,
            y_fp: self.y_fp.and(&others.y_fp)?,
            logits: self.logits.as_ref().zip(others.logits.as_ref()).map(|(a, b)| a.and(b)).transpose()?,
        })
    }
}
