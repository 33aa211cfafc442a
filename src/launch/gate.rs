//! Checks before a cell is quantized: a wrong checkpoint or preprocessing must not become a number in a table.

use super::evaluate::evaluate;
use super::inputs::Inputs;
use crate::error::{Error, Result};
use crate::graph::Network;
use crate::graph::forward::through;
use crate::recon::event::Control;
use crate::recon::propagate::in_batches;
use crate::store::cache::Cache;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Raised when the full-precision pass changes, so that remembered accuracies are measured again.
const REVISION: u32 = 2;
/// Largest difference between the measured accuracy and the card's, as a fraction.
const ACCURACY_TOLERANCE: f64 = 0.0002;
/// Largest change of a logit by folding BatchNorm.
const FOLDING_TOLERANCE: f32 = 1e-3;
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
    pub fn new(cache: &Path) -> Self {
        Self { cache: Cache::new(cache.join("full-precision")) }
    }

    /// Top-1 on the test split in full precision; an error if the checkpoint's card says otherwise.
    pub fn accuracy(&self, inputs: &Inputs, control: &Control) -> Result<f64> {
        let hashes = &inputs.hashes;
        let key = format!("accuracy {REVISION}\n{} {}\n{}", inputs.network.arch, hashes.weights, hashes.test);
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
                let evaluation = evaluate(&inputs.test, control, |x| logits(&inputs.network, x))?;
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

fn logits(network: &Network, x: &Tensor) -> Result<Tensor> {
    through(network.units.iter(), x)
}

/// Refuses a folded network whose logits differ from the original's by more than 1e-3 on the first calibration images.
pub fn check_folding(original: &Network, folded: &Network, calib: &Tensor, control: &Control) -> Result<()> {
    let images = calib.narrow(0, 0, FOLDING_IMAGES.min(calib.dim(0)?))?;
    let [before, after] = [original, folded].map(|network| in_batches(&images, control, |x| logits(network, x)));
    let change = (before? - after?)?.abs()?.max_all()?.to_scalar::<f32>()?;
    match change <= FOLDING_TOLERANCE {
        true => Ok(()),
        false => Err(Error::Sanity(format!(
            "folding BatchNorm changes the logits of {} by up to {change:.1e}; usual suspects: the checkpoint (running \
             statistics), the eps of BatchNorm, the order of the layers",
            original.arch
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assets::checkpoint::Card;
    use crate::assets::hub::Hub;
    use crate::graph::Op;
    use crate::graph::fold_bn::fold_bn;
    use crate::launch::Loader;
    use crate::recon::recipe::BatchNorm;
    use crate::store::record::Record;
    use candle_core::Device;
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
        let error = cache.accuracy(&inputs, &CONTROL).unwrap_err().to_string();
        assert!(error.contains("its card says 92.76 %") && error.contains("preprocessing"), "{error}");
        let card = inputs.card.take();
        let measured = cache.accuracy(&inputs, &CONTROL).unwrap();
        assert!((0.88..0.97).contains(&measured), "{measured}");
        inputs.card = card.map(|card| Card { test_top1: measured + 0.0001, ..card });
        assert_eq!(cache.accuracy(&inputs, &CONTROL).unwrap(), measured);
        // Remembered: another network is not measured as long as nothing hashed changes.
        inputs.network.units.truncate(1);
        assert_eq!(cache.accuracy(&inputs, &CONTROL).unwrap(), measured);
    }

    #[test]
    fn folding_that_changes_the_logits_stops_the_cell() {
        let inputs = inputs();
        for mode in [BatchNorm::Folded, BatchNorm::Kept] {
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
