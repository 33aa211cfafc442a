//! The terms of the meta-loss, one file each.

mod distribution;
mod feature_kl;
mod feature_mse;
mod label_ce;
mod margin;
mod val_kl;
mod weights;

pub use weights::{Terms, TermsOverride};

use super::config::Meta;
use crate::error::Result;
use candle_core::Tensor;

/// One row per term.
pub struct Term {
    /// As written in `[terms]`.
    pub name: &'static str,
    /// Its weight in MetaAug's paper (section 4.1); 0 for a term that is not in it.
    pub published: f64,
    /// Whether a cell names it at weight 0 as well. Only the terms from before there was a table of them are: what is left out does not
    /// change run ids.
    pub is_always_written: bool,
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
    Term { name: "val-kl", published: 5.0, is_always_written: true, loss: Loss::Outer(val_kl::loss) },
    Term { name: "label-ce", published: 0.0, is_always_written: true, loss: Loss::Outer(label_ce::loss) },
    Term { name: "margin", published: 0.5, is_always_written: true, loss: Loss::Images(margin::loss) },
    Term {
        name: "distribution",
        published: 3e4,
        is_always_written: true,
        loss: Loss::Features { mixed: |meta| meta.mixup, loss: distribution::loss },
    },
    Term {
        name: "feature-mse",
        published: 0.0,
        is_always_written: true,
        loss: Loss::Features { mixed: |_| false, loss: feature_mse::loss },
    },
    Term {
        name: "feature-kl",
        published: 0.0,
        is_always_written: true,
        loss: Loss::Features { mixed: |_| false, loss: feature_kl::loss },
    },
];

/// The term called `name`.
pub fn find(name: &str) -> Option<&'static Term> {
    TERMS.iter().find(|term| term.name == name)
}

/// The terms with a weight, in the order of [`TERMS`].
pub fn active(terms: &Terms) -> Vec<(&'static Term, f64)> {
    terms.iter().filter(|(_, weight)| *weight != 0.0).collect()
}

#[cfg(test)]
mod tests;
