//! Predicted classes and top-1 accuracy.

use crate::data::Split;
use crate::error::Result;
use crate::recon::event::{Control, Event};
use candle_core::{D, Tensor};

/// Images per forward pass: recorded with a run, without influence on its result.
pub const EVAL_BATCH: usize = 250;

/// The class with the largest logit for each image of `split`; `network` maps `(N, C, H, W)` to logits `(N, classes)`.
pub fn predict(split: &Split, control: &Control, network: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<u32>> {
    let n = split.labels.len();
    let mut classes = Vec::with_capacity(n);
    for start in (0..n).step_by(EVAL_BATCH) {
        control.check()?;
        let images = split.images.narrow(0, start, EVAL_BATCH.min(n - start))?;
        classes.extend(network(&images)?.argmax(D::Minus1)?.to_vec1::<u32>()?);
        (control.observe)(Event::Evaluated { images: classes.len(), of: n });
    }
    Ok(classes)
}

/// Fraction of the predictions that equal the label.
pub fn top1(predictions: &[u32], labels: &[u32]) -> f64 {
    let right = predictions.iter().zip(labels).filter(|(predicted, label)| predicted == label).count();
    right as f64 / labels.len() as f64
}
