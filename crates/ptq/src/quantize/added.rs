//! Images that join the calibration sample while a unit is reconstructed: transformed, augmented, or both.

use crate::augment::{Augmentation, Normalisation, augmented};
use crate::error::Result;
use crate::graph::Role;
use crate::graph::forward::through;
use crate::meta::train::{self, Originals, Trainable};
use crate::quant::model::{Mode, QuantModel};
use crate::recipe::{Prefix, Recipe};
use crate::recon::activations::Activations;
use crate::recon::event::Control;
use crate::recon::midway::Loops;
use crate::recon::rows::Rows;
use crate::rng::{Purpose, Stream};
use candle_core::Tensor;
use tracing::info_span;

/// Where they come from.
#[derive(Default)]
pub struct Added<'a> {
    /// Applied to copies of the calibration images, or to the transformed ones.
    pub augment: &'a [Augmentation],
    pub normalisation: Option<&'a Normalisation>,
    pub transform: Option<Trainable<'a>>,
    /// Classes of the calibration images.
    pub labels: &'a [u32],
}

impl Added<'_> {
    /// Whether a unit of this role sees them.
    pub fn reaches(&self, role: Role) -> bool {
        match &self.transform {
            Some(transform) => transform.meta.reaches(role),
            None => !self.augment.is_empty() && role == Role::Block,
        }
    }

    /// Trains the transform network, if there is one, for unit `index`, and computes what that unit sees of the images that
    /// it and the augmentations make.
    ///
    /// `x_q`: the unit's input for the original images. The new images go through all earlier units first, since none of
    /// these saw them.
    pub fn rows(
        &self,
        model: &QuantModel,
        index: usize,
        (originals, x_q): (&Originals, &Activations),
        recipe: &Recipe,
        (stream, control, loops): (Stream, &Control, &Loops),
    ) -> Result<Rows> {
        let stream = stream.named(&model.units[index].fp.name);
        let mut images = originals.images.clone();
        if let Some(transform) = &self.transform {
            train::train(transform, model, index, (originals, x_q), recipe, (stream, control, loops))?;
            images = transformed(transform, &images, control)?;
        }
        let _span = info_span!("added images").entered();
        if let (Some(normalisation), false) = (self.normalisation, self.augment.is_empty()) {
            images = augmented(&images, self.augment, normalisation, stream.purpose(Purpose::Augment))?;
        }
        let images = Activations::new(&images, x_q.memory());
        let full = |units: &[crate::quant::model::QuantUnit], x: &Activations| {
            x.map(control, |x| through(units.iter().map(|unit| &unit.fp), x))
        };
        let x_fp = full(&model.units[..index], &images)?;
        let x_q = match recipe.unit_input {
            Prefix::FullPrecision => x_fp.clone(),
            prefix => images.map(control, |x| {
                let mode = Mode::of_prefix(prefix);
                model.units[..index].iter().try_fold(x.clone(), |x, unit| unit.forward(&x, mode))
            })?,
        };
        let y_fp = full(&model.units[index..=index], &x_fp)?;
        let logits = (recipe.prediction_weight > 0.0).then(|| full(&model.units[index + 1..], &y_fp));
        Ok(Rows { x_fp, x_q, y_fp, logits: logits.transpose()? })
    }
}

/// `T(x)` of all images, in batches of the size on which `T` is trained: it may normalise with a batch's statistics.
pub fn transformed(transform: &Trainable, images: &Tensor, control: &Control) -> Result<Tensor> {
    let (n, batch) = (images.dim(0)?, transform.meta.batch);
    let mut parts = Vec::with_capacity(n.div_ceil(batch));
    for start in (0..n).step_by(batch) {
        control.check()?;
        let x = images.narrow(0, start, batch.min(n - start))?;
        parts.push(transform.net.forward(&x, transform.net.config.statistics)?.detach());
    }
    Ok(Tensor::cat(&parts, 0)?)
}
