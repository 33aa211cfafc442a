//! Predicted classes and top-1 accuracy.

use crate::data::{ImageSet, Split};
use crate::error::{Error, Result};
use candle_core::{D, Tensor};
use ptq::recon::event::{Control, Event};

/// Largest number of images per forward pass: recorded with a run, without influence on its result.
pub const EVAL_BATCH: usize = 250;
/// Pixels per forward pass where images are large: 50 of 224 x 224.
const EVAL_PIXELS: usize = 50 * 224 * 224;

/// What a network made of the images of a test split.
pub struct Evaluation {
    /// The class with the largest logit for each readable image, in order.
    pub classes: Vec<u32>,
    /// The class that each of these images has.
    pub labels: Vec<u32>,
    /// Number of images left out because they cannot be decoded.
    pub skipped: usize,
}

impl Evaluation {
    pub fn top1(&self) -> f64 {
        top1(&self.classes, &self.labels)
    }
}

/// Runs `network`, which maps `(N, C, H, W)` to logits `(N, classes)`, over all images of `set`, which are decoded
/// meanwhile.
///
/// Errors: images that cannot be read, unless they are to be skipped; not a single readable image.
pub fn evaluate(
    set: &ImageSet,
    control: &Control,
    network: impl Fn(&Tensor) -> ptq::Result<Tensor>,
) -> Result<Evaluation> {
    let (_, height, width) = set.size();
    let mut evaluation = Evaluation { classes: Vec::new(), labels: Vec::new(), skipped: 0 };
    for batch in set.batches(eval_batch(height, width)) {
        control.check()?;
        let batch = batch?;
        if let Some(images) = &batch.images {
            evaluation.classes.extend(most_likely(&network(images)?)?);
        }
        evaluation.labels.extend(batch.labels);
        evaluation.skipped += batch.skipped.len();
        batch.skipped.into_iter().for_each(|problem| (control.observe)(Event::Skipped { problem }));
        let images = evaluation.labels.len() + evaluation.skipped;
        (control.observe)(Event::Evaluated { images, of: set.len() });
    }
    match evaluation.labels.is_empty() {
        true => Err(Error::Image(format!("none of {} test images can be decoded", set.len()))),
        false => Ok(evaluation),
    }
}

/// The class with the largest logit for each image of `split`; `network` maps `(N, C, H, W)` to logits `(N, classes)`.
pub fn predict(split: &Split, control: &Control, network: impl Fn(&Tensor) -> ptq::Result<Tensor>) -> Result<Vec<u32>> {
    let (n, _, height, width) = split.images.dims4()?;
    let size = eval_batch(height, width);
    let mut classes = Vec::with_capacity(n);
    for start in (0..n).step_by(size) {
        control.check()?;
        classes.extend(most_likely(&network(&split.images.narrow(0, start, size.min(n - start))?)?)?);
        (control.observe)(Event::Evaluated { images: classes.len(), of: n });
    }
    Ok(classes)
}

/// Images per forward pass at this size.
pub fn eval_batch(height: usize, width: usize) -> usize {
    (EVAL_PIXELS / (height * width).max(1)).clamp(1, EVAL_BATCH)
}

fn most_likely(logits: &Tensor) -> Result<Vec<u32>> {
    Ok(logits.argmax(D::Minus1)?.to_vec1::<u32>()?)
}

/// Fraction of the predictions that equal the label.
pub fn top1(predictions: &[u32], labels: &[u32]) -> f64 {
    let right = predictions.iter().zip(labels).filter(|(predicted, label)| predicted == label).count();
    right as f64 / labels.len() as f64
}
