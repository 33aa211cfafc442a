//! A finished weight as whole numbers.

use super::nearest::NEAREST;
use super::{WeightQuantizer, per_channel};
use crate::error::{Error, Result};
use crate::quant::range_search::highest;
use candle_core::{Device, Tensor, Var};

/// Levels with the scales and zero points that make them a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Integers {
    /// 2 to 8.
    pub bits: u32,
    /// `(C_out, ...)`.
    pub shape: Vec<usize>,
    /// Row-major, 0 to `2^b - 1`.
    pub levels: Vec<u8>,
    /// Per output channel.
    pub scale: Vec<f32>,
    /// Per output channel; whole numbers, outside `0..2^b` where the channel's range does not contain 0.
    pub zero_point: Vec<f32>,
}

/// `(level - zero_point) * scale`, rounded twice: the order in which every rounding computes its finished weight.
fn value(level: u8, scale: f32, zero_point: f32) -> f32 {
    (f32::from(level) - zero_point) * scale
}

/// The level whose value is `weight`, to the last bit.
fn level_of(weight: f32, scale: f32, zero_point: f32, highest: u8) -> Option<u8> {
    let is_it = |level: &u8| value(*level, scale, zero_point).to_bits() == weight.to_bits();
    // What is no number becomes 0.
    let likely = (weight / scale + zero_point).round() as u8;
    Some(likely.min(highest)).filter(is_it).or_else(|| (0..=highest).find(is_it))
}

impl Integers {
    /// Elements of an output channel, 1 at least.
    fn per_channel(&self) -> usize {
        (self.levels.len() / self.scale.len().max(1)).max(1)
    }

    /// The weight, `scale * (level - zero_point)`, bit for bit as [`WeightQuantizer::hard`] computes it.
    pub fn weight(&self, device: &Device) -> Result<Tensor> {
        let channels = self.levels.chunks(self.per_channel()).zip(self.scale.iter().zip(&self.zero_point));
        let values = channels.flat_map(|(levels, (&scale, &zero_point))| {
            levels.iter().map(move |&level| value(level, scale, zero_point))
        });
        Ok(Tensor::from_vec(values.collect::<Vec<f32>>(), self.shape.as_slice(), device)?)
    }
}

impl WeightQuantizer {
    /// The finished weight as whole numbers.
    ///
    /// Errors: a weight that no levels are, bit for bit.
    pub fn integers(&self) -> Result<Integers> {
        let weight = self.hard()?;
        let values = weight.flatten_all()?.to_vec1::<f32>()?;
        let scale = (self.rounding.step)(self)?.flatten_all()?.to_vec1::<f32>()?;
        let zero_point = self.zero_point.to_vec1::<f32>()?;
        let mut integers =
            Integers { bits: self.bits, shape: weight.dims().to_vec(), levels: Vec::new(), scale, zero_point };
        let of_channel = (values.len() / integers.scale.len().max(1)).max(1);
        integers.levels.reserve_exact(values.len());
        for (index, &value) in values.iter().enumerate() {
            let (scale, zero_point) = (integers.scale[index / of_channel], integers.zero_point[index / of_channel]);
            let level = level_of(value, scale, zero_point, highest(self.bits) as u8).ok_or_else(|| Error::Shape {
                op: "integer weight",
                problem: format!("{value} is none of the levels {scale} * (0..2^{} - {zero_point})", self.bits),
            })?;
            integers.levels.push(level);
        }
        Ok(integers)
    }

    /// A quantizer of which nothing is learned, whose finished weight these are.
    pub fn of_integers(integers: &Integers, device: &Device) -> Result<Self> {
        let fixed = integers.weight(device)?;
        let scale = Tensor::from_slice(&integers.scale, per_channel(&fixed), device)?;
        Ok(Self {
            bits: integers.bits,
            scale: Var::from_tensor(&scale)?,
            learned: Vec::new(),
            rounding: &NEAREST,
            fixed,
            zero_point: Tensor::from_slice(&integers.zero_point, integers.zero_point.len(), device)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::noise;
    use crate::quant::range_search::Range;
    use crate::recipe::RoundingName;
    use candle_core::DType;

    fn bits(tensor: &Tensor) -> Vec<u32> {
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    /// Channels whose zero is inside, below, above and far outside of the levels, whatever else was learned.
    #[test]
    fn every_rounding_comes_back_bit_for_bit_wherever_its_zeros_lie() {
        let zero_points = [1.0, -3.0, 9.0, 40_000_000.0];
        for (rounding, width) in [RoundingName::Nearest, RoundingName::Adaround, RoundingName::Flexround]
            .into_iter()
            .flat_map(|rounding| (2..=8).map(move |width| (rounding, width)))
        {
            let weight = noise((4, 3, 3, 3), 1, DType::F32);
            let ranges = zero_points.map(|zero_point| Range { scale: 1.7 / highest(width), zero_point });
            let quantizer = WeightQuantizer::new(&weight, &ranges, width, rounding).unwrap();
            // Rounding to nearest learns no scale either.
            let scale = (rounding != RoundingName::Nearest).then_some(&quantizer.scale);
            for (seed, var) in quantizer.learned.iter().chain(scale).enumerate() {
                let moved = (noise(var.dims(), 7 + seed as u64, DType::F32) * 0.1).unwrap();
                var.set(&(var.as_detached_tensor() + moved).unwrap()).unwrap();
            }
            let integers = quantizer.integers().unwrap();
            let stored = WeightQuantizer::of_integers(&integers, &Device::Cpu).unwrap();
            let expected = bits(&quantizer.hard().unwrap());
            assert_eq!(bits(&stored.hard().unwrap()), expected, "{rounding:?} at {width} bits");
            assert_eq!(bits(&integers.weight(&Device::Cpu).unwrap()), expected);
            assert_eq!(stored.integers().unwrap(), integers);
        }
    }

    #[test]
    fn a_weight_between_levels_is_refused() {
        let weight = noise((2, 5), 1, DType::F32);
        let ranges = [Range { scale: 0.5, zero_point: 2.0 }; 2];
        let mut quantizer = WeightQuantizer::new(&weight, &ranges, 2, RoundingName::Nearest).unwrap();
        quantizer.fixed = (quantizer.fixed + 0.01).unwrap();
        let error = quantizer.integers().unwrap_err().to_string();
        assert!(error.contains("is none of the levels 0.5 * (0..2^2 - 2)"), "{error}");
    }
}
