//! Predicted classes and top-1 accuracy.

use crate::data::{ImageSet, Split};
use crate::error::{Error, Result};
use candle_core::{D, Tensor};
use ptq::device_error::Left;
use ptq::recon::event::{Control, Event};
use std::cell::Cell;

/// Largest number of images per forward pass, fewer where a GPU has no memory for them: recorded with a run, without influence on its
/// result.
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

/// Runs `network`, which maps `(N, C, H, W)` to logits `(N, classes)`, over all images of `set`, at most `most` at a time; they are decoded
/// meanwhile.
///
/// Errors: images that cannot be read, unless they are to be skipped; not a single readable image.
pub fn evaluate(
    set: &ImageSet,
    most: usize,
    control: &Control,
    network: impl Fn(&Tensor) -> ptq::Result<Tensor>,
) -> Result<Evaluation> {
    let (_, height, width) = set.size();
    let batches = Batches::new(eval_batch(height, width).min(most));
    let mut evaluation = Evaluation { classes: Vec::new(), labels: Vec::new(), skipped: 0 };
    for batch in set.batches(batches.size.get()) {
        control.check()?;
        let batch = batch?;
        if let Some(images) = &batch.images {
            evaluation.classes.extend(batches.classes(images, control, &network)?);
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

/// The class with the largest logit for each image of `split`, at most `most` at a time; `network` maps `(N, C, H, W)` to logits `(N, classes)`.
pub fn predict(
    split: &Split,
    most: usize,
    control: &Control,
    network: impl Fn(&Tensor) -> ptq::Result<Tensor>,
) -> Result<Vec<u32>> {
    let (n, _, height, width) = split.images.dims4()?;
    let size = eval_batch(height, width).min(most);
    let batches = Batches::new(size);
    let mut classes = Vec::with_capacity(n);
    for start in (0..n).step_by(size) {
        control.check()?;
        let images = split.images.narrow(0, start, size.min(n - start))?;
        classes.extend(batches.classes(&images, control, &network)?);
        (control.observe)(Event::Evaluated { images: classes.len(), of: n });
    }
    Ok(classes)
}

/// Forward passes of as many images as the device has memory for.
struct Batches {
    /// Images of a pass; half as many since the memory was too small.
    size: Cell<usize>,
}

impl Batches {
    fn new(size: usize) -> Self {
        Self { size: Cell::new(size) }
    }

    /// The class with the largest logit for each of `images`.
    ///
    /// Errors: those of `network`; no memory for a single image.
    fn classes(
        &self,
        images: &Tensor,
        control: &Control,
        network: &impl Fn(&Tensor) -> ptq::Result<Tensor>,
    ) -> Result<Vec<u32>> {
        let n = images.dim(0)?;
        let mut classes = Vec::with_capacity(n);
        while classes.len() < n {
            let size = self.size.get().min(n - classes.len());
            let part = images.narrow(0, classes.len(), size)?;
            match network(&part).and_then(|logits| Ok(most_likely(&logits)?)) {
                Ok(of_part) => classes.extend(of_part),
                Err(error) if size > 1 && error.of_device().is_some_and(|error| error.left == Left::Memory) => {
                    self.size.set(size.div_ceil(2));
                    (control.observe)(Event::Halved { images: self.size.get() });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(classes)
    }
}

/// Images per forward pass at this size.
pub fn eval_batch(height: usize, width: usize) -> usize {
    (EVAL_PIXELS / (height * width).max(1)).clamp(1, EVAL_BATCH)
}

fn most_likely(logits: &Tensor) -> candle_core::Result<Vec<u32>> {
    logits.argmax(D::Minus1)?.to_vec1::<u32>()
}

/// Fraction of the predictions that equal the label.
pub fn top1(predictions: &[u32], labels: &[u32]) -> f64 {
    let right = predictions.iter().zip(labels).filter(|(predicted, label)| predicted == label).count();
    right as f64 / labels.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_device_without_enough_memory_gets_fewer_images_at_a_time() {
        let logits: Vec<f32> = (0..20).map(|image| (image % 3) as f32).collect();
        let images = Tensor::from_vec(logits, (20, 1, 1, 1), &Device::Cpu).unwrap();
        let one_hot = Tensor::eye(3, candle_core::DType::F32, &Device::Cpu).unwrap();
        let (sizes, halved, running) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()), AtomicBool::new(false));
        let observe = |event: Event| {
            if let Event::Halved { images } = event {
                halved.lock().unwrap().push(images);
            }
        };
        let control = Control { observe: &observe, cancelled: &running };
        // The memory of a GPU with room for `most` images.
        let network = |most: usize| {
            let sizes = &sizes;
            let one_hot = &one_hot;
            move |x: &Tensor| -> ptq::Result<Tensor> {
                let n = x.dim(0)?;
                if n > most {
                    let problem = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
                    return Err(candle_core::Error::Msg(problem.to_string()).into());
                }
                sizes.lock().unwrap().push(n);
                Ok(one_hot.index_select(&x.flatten_all()?.to_dtype(candle_core::DType::U32)?, 0)?)
            }
        };
        let batches = Batches::new(16);
        let classes = batches.classes(&images, &control, &network(5)).unwrap();
        assert_eq!(classes, (0..20).map(|image| image % 3).collect::<Vec<u32>>());
        assert_eq!((&*sizes.lock().unwrap(), &*halved.lock().unwrap()), (&vec![4; 5], &vec![8, 4]));
        // What was learned stays; one image that does not fit is an error.
        assert_eq!(batches.size.get(), 4);
        let problem = batches.classes(&images, &control, &network(0)).unwrap_err().to_string();
        assert!(problem.contains("OUT_OF_MEMORY"), "{problem}");
    }
}
