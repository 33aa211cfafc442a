//! What a trained transform network does to images, and what networks make of them then.

use super::evaluate::{EVAL_BATCH, predict, top1};
use super::run_cell::trainable;
use crate::data::Split;
use crate::error::{Error, Result};
use crate::experiment::Cell;
use candle_core::Tensor;
use ptq::meta::nets::TransformNet;
use ptq::ops::finite::is_finite;
use ptq::quantize::added::transformed;
use ptq::recon::event::Control;

/// Images and their transforms.
pub struct Transformed {
    split: Split,
    /// Of pixels, normalised: mean and largest of `|T(x) - x|`.
    pub mean_change: f64,
    pub largest_change: f64,
}

/// What one network makes of images and of their transforms.
pub struct Compared {
    /// Fractions that are of the right class.
    pub top1: f64,
    pub transformed_top1: f64,
    /// Classes of the transforms.
    pub classes: Vec<u32>,
    /// Fraction of images that are of the same class as their transforms.
    pub unchanged: f64,
}

impl Transformed {
    /// `images` transformed as while the units of `cell` were reconstructed.
    ///
    /// Errors: a cell without a transform network; one that makes no numbers of them.
    pub fn new(cell: &Cell, net: &TransformNet, images: &Split, control: &Control) -> Result<Self> {
        let Some(transform) = trainable(cell, Some(net)) else {
            return Err(Error::Usage("the cell has no transform network".to_string()));
        };
        let t_x = transformed(&transform, &images.images, control)?;
        if !is_finite(&t_x)? {
            return Err(Error::Sanity(
                "the transform network makes NaN or infinite numbers of these images".to_string(),
            ));
        }
        let change = (&t_x - &images.images)?.abs()?;
        Ok(Self {
            mean_change: f64::from(change.mean_all()?.to_scalar::<f32>()?),
            largest_change: f64::from(change.max_all()?.to_scalar::<f32>()?),
            split: Split { images: t_x, ..images.clone() },
        })
    }

    /// `classes`: those that `network`, which maps images to logits, gave the originals.
    pub fn compared(
        &self,
        classes: &[u32],
        control: &Control,
        network: impl Fn(&Tensor) -> ptq::Result<Tensor>,
    ) -> Result<Compared> {
        let of_transformed = predict(&self.split, EVAL_BATCH, control, network)?;
        Ok(Compared {
            top1: top1(classes, &self.split.labels),
            transformed_top1: top1(&of_transformed, &self.split.labels),
            unchanged: top1(&of_transformed, classes),
            classes: of_transformed,
        })
    }
}
