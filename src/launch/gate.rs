//! Checks before a cell is quantized: a wrong checkpoint or preprocessing must not become a number in a table.

use super::evaluate::evaluate;
use super::inputs::Inputs;
use super::ranges::precision_of;
use crate::data;
use crate::disk::cache::Cache;
use crate::error::{Error, Result};
use crate::experiment::revisions::in_key;
use candle_core::Tensor;
use ptq::graph::Network;
use ptq::graph::finite::check_finite;
use ptq::graph::forward::{FullPrecision, forward, through};
use ptq::ops::finite::is_finite;
use ptq::recon::event::Control;
use ptq::recon::propagate::in_batches;
use ptq::revisions::OPS;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Largest difference between the measured accuracy and the card's, as a fraction.
const ACCURACY_TOLERANCE: f64 = 0.0002;
/// Largest change of a logit that folding BatchNorm may make, as a share of the spread of the logits: a classifier whose weights are
/// all scaled is as right as before, and its logits are scaled with them.
const FOLDING_TOLERANCE: f32 = 1e-4;
/// The same relative to the largest logit, where all are nearly alike and far from 0.
const ROUNDING_TOLERANCE: f32 = 1e-5;
/// Images on which folding is checked.
const FOLDING_IMAGES: usize = 64;

/// Full-precision accuracies, measured once per network and test set and remembered in a folder.
pub struct FullPrecisionCache {
    cache: Cache,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    test_top1: f64,
    images: usize,
    #[serde(default)]
    skipped: usize,
}

impl FullPrecisionCache {
    /// In its part of the folder `cache`.
    pub fn new(cache: &Path) -> Self {
        Self { cache: Cache::new(Self::folder(cache)) }
    }

    /// The part of the folder `cache` that is for these accuracies.
    pub fn folder(cache: &Path) -> PathBuf {
        cache.join("full-precision")
    }

    /// Top-1 on the test split in full precision, at most `most` images at a time; an error if the checkpoint's card says otherwise.
    pub fn accuracy(&self, inputs: &Inputs, most: usize, control: &Control) -> Result<f64> {
        let hashes = &inputs.hashes;
        let revisions = in_key(&[OPS, data::MODULE]);
        let (arch, precision) = (inputs.network.arch, precision_of(&inputs.calib.images));
        let key = format!("accuracy\n{revisions}{arch} {}\n{}{precision}", hashes.weights, hashes.test);
        let _held = self.cache.hold(&key);
        // What cannot be parsed only costs a measurement.
        let remembered = self.cache.get(&key).and_then(|json| serde_json::from_slice::<Remembered>(&json).ok());
        let images = inputs.test.len();
        // What was measured without the unreadable images says nothing where these are errors.
        let counts = |remembered: &Remembered| {
            remembered.images == images && (remembered.skipped == 0 || !inputs.test.corrupt.is_error())
        };
        let measured = match remembered.filter(counts) {
            Some(remembered) => remembered.test_top1,
            None => {
                let evaluation = evaluate(&inputs.test, most, control, |x| logits(&inputs.network, x))?;
                let (test_top1, skipped) = (evaluation.top1(), evaluation.skipped);
                let json = serde_json::to_vec(&Remembered { test_top1, images, skipped })
                    .map_err(|error| Error::Usage(format!("an accuracy cannot be written: {error}")))?;
                self.cache.put(&key, &json);
                test_top1
            }
        };
        match &inputs.card {
            Some(card) if (measured - card.test_top1).abs() > ACCURACY_TOLERANCE => Err(Error::Sanity(format!(
                "{} reaches {:.2} % on the test set in full precision, its card says {:.2} %; usual suspects: \
                 preprocessing (mean, standard deviation, image order), the checkpoint, the labels",
                inputs.network.arch,
                100.0 * measured,
                100.0 * card.test_top1
            ))),
            _ => Ok(measured),
        }
    }
}

/// Logits of a full-precision network. Errors: NaN or infinite ones, with the node at which they arise.
fn logits(network: &Network, x: &Tensor) -> ptq::Result<Tensor> {
    let y = through(network.units.iter(), x)?;
    if !is_finite(&y)? {
        network.units.iter().try_fold(x.clone(), |x, unit| {
            let y = forward(unit, &x, &FullPrecision)?;
            check_finite(unit, &x, &y, &FullPrecision, "in full precision").map(|()| y)
        })?;
    }
    Ok(y)
}

/// Refuses a folded network whose logits differ from the original's on the first calibration images, by more than 1e-4 of the
/// distance from the smallest of them to the largest, beside the rounding errors of their size.
pub fn check_folding(original: &Network, folded: &Network, calib: &Tensor, control: &Control) -> Result<()> {
    let images = calib.narrow(0, 0, FOLDING_IMAGES.min(calib.dim(0)?))?;
    let [before, after] = [original, folded].map(|network| in_batches(&images, control, |x| logits(network, x)));
    let before = before?;
    let change = (&before - after?)?.abs()?.max_all()?.to_scalar::<f32>()?;
    let [smallest, largest] = [before.min_all()?, before.max_all()?].map(|logit| logit.to_scalar::<f32>());
    let (smallest, largest) = (smallest?, largest?);
    let spread = largest - smallest;
    match change <= FOLDING_TOLERANCE * spread + ROUNDING_TOLERANCE * largest.abs().max(smallest.abs()) {
        true => Ok(()),
        false => Err(Error::Sanity(format!(
            "folding BatchNorm changes the logits of {}, which span {spread:.1e}, by up to {change:.1e}; usual suspects: the \
             checkpoint (running statistics), the eps of BatchNorm, the order of the layers",
            original.arch
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assets::checkpoint::Card;
    use crate::hub::Hub;
    use crate::launch::EVAL_BATCH;
    use crate::launch::Loader;
    use crate::store::record::Record;
    use candle_core::Device;
    use ptq::graph::Op;
    use ptq::graph::fold_bn::fold_bn;
    use ptq::recipe::BatchNormMode;
    use std::sync::atomic::AtomicBool;

    static RUNNING: AtomicBool = AtomicBool::new(false);
    static CONTROL: Control = Control { observe: &|_| (), cancelled: &RUNNING };

    fn inputs() -> Inputs {
        Loader::new(&Device::Cpu, Hub::silent()).inputs(&Record::sample("x", "qdrop", "W4A4", 0).cell).unwrap()
    }

    #[test]
    fn an_accuracy_off_its_card_stops_the_cell() {
        let folder = tempfile::tempdir().unwrap();
        let cache = FullPrecisionCache::new(folder.path());
        let mut inputs = inputs();
        // 500 images of 10,000: fast, and not the accuracy of the card.
        inputs.test = inputs.test.truncated(500);
        let error = cache.accuracy(&inputs, EVAL_BATCH, &CONTROL).unwrap_err().to_string();
        assert!(error.contains("its card says 92.76 %") && error.contains("preprocessing"), "{error}");
        let card = inputs.card.take();
        let measured = cache.accuracy(&inputs, EVAL_BATCH, &CONTROL).unwrap();
        assert!((0.88..0.97).contains(&measured), "{measured}");
        inputs.card = card.map(|card| Card { test_top1: measured + 0.0001, ..card });
        assert_eq!(cache.accuracy(&inputs, EVAL_BATCH, &CONTROL).unwrap(), measured);
        // Remembered: another network is not measured as long as nothing hashed changes.
        inputs.network.units.truncate(1);
        assert_eq!(cache.accuracy(&inputs, EVAL_BATCH, &CONTROL).unwrap(), measured);
    }

    #[test]
    fn a_scaled_classifier_is_judged_by_its_own_spread() {
        let inputs = inputs();
        for factor in [1e-3, 100.0] {
            let mut network = inputs.network.clone();
            let last = network.units.last_mut().unwrap().nodes.last_mut().unwrap();
            let Op::Linear(layer) = &mut last.op else { panic!("not a linear layer") };
            layer.weight = (&layer.weight * factor).unwrap();
            layer.bias = layer.bias.as_ref().map(|bias| (bias * factor).unwrap());
            let mut folded = fold_bn(&network, BatchNormMode::Folded).unwrap();
            check_folding(&network, &folded, &inputs.calib.images, &CONTROL).unwrap();
            let Op::Conv(conv) = &mut folded.units[3].nodes[0].op else { panic!("not a convolution") };
            conv.bias = conv.bias.as_ref().map(|bias| (bias + 0.01).unwrap());
            assert!(check_folding(&network, &folded, &inputs.calib.images, &CONTROL).is_err(), "{factor}");
        }
    }

    #[test]
    fn nan_in_the_network_is_an_error_that_says_where_it_arises() {
        let mut inputs = inputs();
        let folder = tempfile::tempdir().unwrap();
        let norm = inputs.network.units[2].nodes.iter_mut().find_map(|node| match &mut node.op {
            Op::BatchNorm(norm) => Some((node.name.clone(), norm)),
            _ => None,
        });
        let (name, norm) = norm.unwrap();
        norm.var = (&norm.var - 1e6).unwrap();
        let folded = fold_bn(&inputs.network, BatchNormMode::Folded).unwrap();
        for error in [
            FullPrecisionCache::new(folder.path()).accuracy(&inputs, EVAL_BATCH, &CONTROL).unwrap_err(),
            check_folding(&inputs.network, &folded, &inputs.calib.images, &CONTROL).unwrap_err(),
        ] {
            let expected = format!("the output of {name} (batch-norm) in unit {}", inputs.network.units[2].name);
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }

    #[test]
    fn folding_that_changes_the_logits_stops_the_cell() {
        let inputs = inputs();
        for mode in [BatchNormMode::Folded, BatchNormMode::Kept] {
            let mut folded = fold_bn(&inputs.network, mode).unwrap();
            check_folding(&inputs.network, &folded, &inputs.calib.images, &CONTROL).unwrap();
            let Op::Conv(conv) = &mut folded.units[3].nodes[0].op else { panic!("not a convolution") };
            conv.bias = conv.bias.as_ref().map(|bias| (bias + 0.01).unwrap());
            let error =
                check_folding(&inputs.network, &folded, &inputs.calib.images, &CONTROL).unwrap_err().to_string();
            assert!(error.contains("folding BatchNorm changes the logits of resnet20"), "{error}");
        }
    }
}
