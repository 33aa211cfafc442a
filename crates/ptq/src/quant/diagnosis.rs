//! What quantizing did to a network: how far its weights, activations and outputs are from those in full precision, layer by layer.

use super::model::{Mode, QuantModel, QuantUnit};
use super::range_search::Range;
use super::weight::WeightQuantizer;
use crate::error::Result;
use crate::graph::forward::{FullPrecision, forward};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;

/// Bins of a histogram.
pub const BINS: usize = 48;

/// A quantized network beside the one it was made from, seen on some images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// How many images activations and outputs were seen on.
    pub images: usize,
    pub units: Vec<UnitDiagnosis>,
}

/// One unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitDiagnosis {
    pub unit: String,
    /// Signal-to-quantization-noise ratio of its output in decibels, all units up to it quantized; `None`: no noise.
    pub output_sqnr_db: Option<f64>,
    /// Of its convolutions and linear layers, in their order.
    pub weights: Vec<WeightDiagnosis>,
    /// Of the activation quantizers that take part.
    pub acts: Vec<ActDiagnosis>,
}

/// The weight of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightDiagnosis {
    pub node: String,
    pub shape: Vec<usize>,
    /// `None`: not quantized.
    pub bits: Option<u32>,
    /// `None`: no noise.
    pub sqnr_db: Option<f64>,
    /// The smallest and the largest distance between neighbouring levels of an output channel; `None` where it is not quantized.
    pub scales: Option<[f64; 2]>,
    pub histogram: Histogram,
}

/// How many weights lie where, before and after quantization, in [`BINS`] bins of equal width from `low` to `high`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    pub low: f64,
    pub high: f64,
    pub before: Vec<u64>,
    pub after: Vec<u64>,
}

/// One activation quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActDiagnosis {
    /// The tensor that it quantizes: `input`, or the node that computes it.
    pub tensor: String,
    pub bits: u32,
    pub scale: f64,
    /// The values of its lowest and of its highest level.
    pub range: [f64; 2],
    /// The share of the activations that are farther outside of the range than half a step, so that they lose more than by rounding.
    pub clipped: f64,
}

impl Diagnosis {
    /// Of `model`, whose units keep the parameters in full precision, on `images` (N, C, H, W). No gradient.
    pub fn new(model: &QuantModel, images: &Tensor) -> Result<Self> {
        let (mut exact, mut quantized) = (images.clone(), images.clone());
        let mut units = Vec::with_capacity(model.units.len());
        for unit in &model.units {
            let acts;
            (quantized, acts) = through(unit, &quantized)?;
            exact = forward(&unit.fp, &exact, &FullPrecision)?;
            units.push(UnitDiagnosis {
                unit: unit.fp.name.clone(),
                output_sqnr_db: finite(sqnr_db(&exact, &quantized)?),
                weights: weights(unit)?,
                acts,
            });
        }
        Ok(Self { images: images.dim(0)?, units })
    }
}

/// `10 log10(sum x^2 / sum (x - x_q)^2)`: infinite without noise.
pub fn sqnr_db(x: &Tensor, x_q: &Tensor) -> Result<f64> {
    let (x, x_q) = (x.to_dtype(DType::F64)?, x_q.to_dtype(DType::F64)?);
    let noise = (&x - x_q)?;
    let sum_of_squares = |tensor: &Tensor| tensor.sqr()?.sum_all()?.to_scalar::<f64>();
    Ok(10.0 * (sum_of_squares(&x)? / sum_of_squares(&noise)?).log10())
}

/// JSON has no infinity.
fn finite(ratio: f64) -> Option<f64> {
    ratio.is_finite().then_some(ratio)
}

/// The output of `unit` for what the units before it make of the images, and what its activation quantizers do on the way.
fn through(unit: &QuantUnit, x: &Tensor) -> Result<(Tensor, Vec<ActDiagnosis>)> {
    let seen: RefCell<Vec<Option<ActDiagnosis>>> = RefCell::new(vec![None; unit.acts.len()]);
    let see = |site: usize, x: &Tensor| -> Result<()> {
        // Consumers of one tensor share its quantizer.
        if seen.borrow()[site].is_none() {
            let act = &unit.acts[site];
            if let Some(range) = act.range()? {
                let found = act_diagnosis(&unit.placement.sites[site].tensor, act.bits, range, x)?;
                seen.borrow_mut()[site] = Some(found);
            }
        }
        Ok(())
    };
    let y = unit.forward_seen(x, Mode::HARD, &see)?;
    Ok((y, seen.into_inner().into_iter().flatten().collect()))
}

fn act_diagnosis(tensor: &str, bits: u32, range: Range, x: &Tensor) -> Result<ActDiagnosis> {
    let (lowest, highest) = range.levels(bits);
    let (scale, lowest, highest) = (f64::from(range.scale), f64::from(lowest), f64::from(highest));
    let (below, above) = (x.lt((lowest - 0.5) * scale)?, x.gt((highest + 0.5) * scale)?);
    // A mean per image: sums of more ones than 2^24 are not exact.
    let outside = (below.to_dtype(DType::F32)? + above.to_dtype(DType::F32)?)?.flatten_from(1)?.mean(1)?;
    let clipped = outside.to_dtype(DType::F64)?.mean_all()?.to_scalar()?;
    Ok(ActDiagnosis { tensor: tensor.to_string(), bits, scale, range: [lowest * scale, highest * scale], clipped })
}

fn weights(unit: &QuantUnit) -> Result<Vec<WeightDiagnosis>> {
    let layers = unit.fp.nodes.iter().zip(&unit.weights);
    let layers = layers.filter_map(|(node, quantizer)| Some((node, node.op.weight()?, quantizer.as_ref())));
    let diagnosed = layers.map(|(node, exact, quantizer)| {
        let quantized = quantizer.map_or_else(|| Ok(exact.clone()), WeightQuantizer::hard)?;
        Ok(WeightDiagnosis {
            node: node.name.clone(),
            shape: exact.dims().to_vec(),
            bits: quantizer.map(|quantizer| quantizer.bits),
            sqnr_db: finite(sqnr_db(exact, &quantized)?),
            scales: quantizer.map(scales).transpose()?,
            histogram: Histogram::new(&values(exact)?, &values(&quantized)?),
        })
    });
    diagnosed.collect()
}

fn scales(quantizer: &WeightQuantizer) -> Result<[f64; 2]> {
    let steps = values(&(quantizer.rounding.step)(quantizer)?)?;
    let smallest = steps.iter().copied().fold(f32::INFINITY, f32::min);
    let largest = steps.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    Ok([smallest.into(), largest.into()])
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

impl Histogram {
    fn new(before: &[f32], after: &[f32]) -> Self {
        let all = || before.iter().chain(after).copied();
        let (low, high) = (all().fold(f32::INFINITY, f32::min), all().fold(f32::NEG_INFINITY, f32::max));
        let (low, high) = (f64::from(low), f64::from(high));
        let width = (high - low) / BINS as f64;
        let count = |values: &[f32]| {
            let mut counts = vec![0; BINS];
            for value in values {
                // The largest lies at the end of the last bin; where all are equal, there is only the first.
                let bin = ((f64::from(*value) - low) / width) as usize;
                counts[bin.min(BINS - 1)] += 1;
            }
            counts
        };
        Self { low, high, before: count(before), after: count(after) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::layout::TORCHVISION;
    use crate::arch::{self, made_up};
    use crate::graph::fold_bn::fold_bn;
    use crate::methods;
    use crate::ops::check::noise;
    use crate::recipe::{Prefix, Setting};
    use candle_core::Device;

    /// Of ResNet-20 with made-up weights, rounded to nearest, on four images.
    fn rounded(bits: &str) -> Diagnosis {
        let arch = arch::find("resnet20").unwrap();
        let tensors = made_up::tensors(arch, &TORCHVISION).unwrap();
        let trained = arch::load(arch, tensors, "made-up", &Device::Cpu).unwrap();
        let recipe = (methods::find("rtn").unwrap().recipe)(arch);
        let network = fold_bn(&trained, recipe.batch_norm).unwrap();
        let mut model = QuantModel::new(&network, bits.parse().unwrap(), Setting::Qdrop, &recipe).unwrap();
        let images = noise((4, arch.images[0], 28, 28), 3, DType::F32);
        model.search_acts(&images, recipe.act_search, Mode::of_prefix(Prefix::FullPrecision)).unwrap();
        Diagnosis::new(&model, &images).unwrap()
    }

    #[test]
    fn more_bits_lose_less_in_every_unit() {
        let [two, eight] = ["W2A2", "W8A8"].map(rounded);
        assert_eq!((two.images, two.units.len(), eight.units.len()), (4, 11, 11));
        for (two, eight) in two.units.iter().zip(&eight.units).skip(1) {
            assert_eq!(two.unit, eight.unit);
            assert!(eight.output_sqnr_db > two.output_sqnr_db.map(|ratio| ratio + 6.0), "{two:?} {eight:?}");
            for act in two.acts.iter().chain(&eight.acts) {
                assert!(act.range[0] < act.range[1] && act.scale > 0.0 && (0.0..1.0).contains(&act.clipped), "{act:?}");
            }
        }
        let (few, many) = (&two.units[1].weights, &eight.units[1].weights);
        assert_eq!(
            (few[0].node.as_str(), &few[0].shape[..], few[0].bits),
            ("layer1.0.conv1", &[16, 16, 3, 3][..], Some(2))
        );
        assert!(many[0].sqnr_db > few[0].sqnr_db.map(|ratio| ratio + 24.0), "{few:?} {many:?}");
        let (before, after) = (&few[0].histogram.before, &few[0].histogram.after);
        assert_eq!((before.iter().sum::<u64>(), after.iter().sum::<u64>()), (16 * 16 * 9, 16 * 16 * 9));
        // The images themselves are not quantized.
        assert_eq!(two.units[0].acts.iter().filter(|act| act.tensor == "input").count(), 0);
    }

    #[test]
    fn nothing_is_lost_in_full_precision() {
        for unit in rounded("W32A32").units {
            assert_eq!((unit.output_sqnr_db, unit.acts.len()), (None, 0), "{}", unit.unit);
            assert!(unit.weights.iter().all(|weight| weight.bits.is_none() && weight.scales.is_none()));
        }
    }

    #[test]
    fn a_histogram_counts_every_weight_once() {
        let before: Vec<f32> = (0..=480).map(|i| i as f32 / 240.0 - 1.0).collect();
        let after: Vec<f32> = before.iter().map(|x| x.round()).collect();
        let histogram = Histogram::new(&before, &after);
        assert_eq!((histogram.low, histogram.high), (-1.0, 1.0));
        assert_eq!(histogram.before.iter().sum::<u64>(), 481);
        assert_eq!((histogram.before[0], histogram.before[BINS - 1]), (10, 11));
        let filled: Vec<(usize, u64)> =
            histogram.after.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0, 121), (BINS / 2, 239), (BINS - 1, 121)]);
        assert_eq!(Histogram::new(&[0.5; 3], &[0.5; 3]).before[0], 3);
    }

    #[test]
    fn what_is_outside_by_more_than_half_a_step_is_clipped() {
        // Levels 0 to 3 of step 0.5, so that 1.75 is the first value that loses more than by rounding, and -0.25 at the other end.
        let x = [-1.0f32, -0.25, -0.2, 0.0, 1.5, 1.7, 1.75, 1.8, 9.0, 0.7];
        let x = Tensor::new(&x, &Device::Cpu).unwrap().reshape((2, 5)).unwrap();
        let act = act_diagnosis("conv1", 2, Range { scale: 0.5, zero_point: 0.0 }, &x).unwrap();
        assert_eq!((act.range, act.scale), ([0.0, 1.5], 0.5));
        assert!((act.clipped - 0.3).abs() < 1e-6, "{}", act.clipped);
    }

    #[test]
    fn noise_is_in_decibels() {
        let x = Tensor::new(&[3.0f32, 4.0], &Device::Cpu).unwrap();
        let x_q = Tensor::new(&[3.0f32, 4.5], &Device::Cpu).unwrap();
        assert!((sqnr_db(&x, &x_q).unwrap() - 20.0).abs() < 1e-9);
        assert_eq!(finite(sqnr_db(&x, &x).unwrap()), None);
    }
}
