//! The terms of the meta-loss, one file each.

mod distribution;
mod feature_kl;
mod feature_mse;
mod label_ce;
mod margin;
mod val_kl;

use super::config::{Meta, Terms};
use crate::error::Result;
use candle_core::Tensor;

/// One row per term.
pub struct Term {
    /// As written in `[terms]`.
    pub name: &'static str,
    pub weight: fn(&Terms) -> f64,
    pub loss: Loss,
}

/// What a term looks at.
pub enum Loss {
    /// The updated quantized network on original images: `T` is reached through the virtual update alone.
    Outer(fn(&Outer, &Meta) -> Result<Tensor>),
    /// The transformed images beside the original ones.
    Images(fn(&Images, &Meta) -> Result<Tensor>),
    /// Their features in the full-precision network: what its last layer reads.
    Features { mixed: fn(&Meta) -> bool, loss: fn(&Features) -> Result<Tensor> },
}

/// Predictions on original images.
pub struct Outer<'a> {
    /// Logits `(N, classes)` of the network whose current unit was updated.
    pub logits_q: &'a Tensor,
    /// Logits in full precision.
    pub logits_fp: &'a Tensor,
    pub labels: &'a [u32],
}

/// Original and transformed images, `(N, C, H, W)`.
pub struct Images<'a> {
    pub x: &'a Tensor,
    pub t_x: &'a Tensor,
}

/// Features `(N, F)`.
pub struct Features<'a> {
    /// Of original images; constant.
    pub of_x: &'a Tensor,
    /// Of transformed images.
    pub of_t_x: &'a Tensor,
}

/// Every known term.
pub const TERMS: &[Term] = &[
    Term { name: "val-kl", weight: |terms| terms.val_kl, loss: Loss::Outer(val_kl::loss) },
    Term { name: "label-ce", weight: |terms| terms.label_ce, loss: Loss::Outer(label_ce::loss) },
    Term { name: "margin", weight: |terms| terms.margin, loss: Loss::Images(margin::loss) },
    Term {
        name: "distribution",
        weight: |terms| terms.distribution,
        loss: Loss::Features { mixed: |meta| meta.mixup, loss: distribution::loss },
    },
    Term {
        name: "feature-mse",
        weight: |terms| terms.feature_mse,
        loss: Loss::Features { mixed: |_| false, loss: feature_mse::loss },
    },
    Term {
        name: "feature-kl",
        weight: |terms| terms.feature_kl,
        loss: Loss::Features { mixed: |_| false, loss: feature_kl::loss },
    },
];

/// The terms with a weight, in the order of [`TERMS`].
pub fn active(terms: &Terms) -> Vec<(&'static Term, f64)> {
    TERMS.iter().map(|term| (term, (term.weight)(terms))).filter(|(_, weight)| *weight != 0.0).collect()
}

#[cfg(test)]
mod tests;
