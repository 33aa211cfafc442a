//! Rounding by element-wise division (FlexRound, arXiv 2306.00317, equation 2).
//!
//! `W_q = s_1 (clip(round(W / (s_1 S_2 s_3 s_4)) + zero_point, 0, 2^b - 1) - zero_point)`, straight through `round`. All divisors are
//! positive and learned together: `s_1` per output channel, from the searched scale on, `S_2` of the weight's shape, `s_3` per output
//! channel and, for convolutions, `s_4` per input channel, these from 1 on.
//!
//! What the paper leaves open is as in the published code (`FlexRound_LRQ`): the logarithms are learned, which keeps the divisors positive
//! and makes a step of Adam a relative change, and one learning rate serves all of them. There is no regulariser.
//!
//! Deviates: the paper has one `s_1` for a whole layer in its experiments with image networks; here as everywhere scales are per output
//! channel.

use super::{DualMode, Parameters, Rounding, WeightQuantizer, per_channel};
use crate::error::Result;
use crate::ops::dual::{Dual, sum};
use crate::ops::fake_quant::Linearised;
use crate::ops::rounding::{Regulariser, SoftWeight, straight_through_levels};
use crate::ops::tape::plain;
use crate::quant::range_search::Range;
use candle_core::{Tensor, Var};
use tracing::trace_span;

pub static FLEXROUND: Rounding = Rounding { parameters, soft, hard, step, dual, penalty };

/// Fixed: `W`; learned: the logarithms of `s_1 / scale`, `S_2`, `s_3` and, for convolutions, `s_4`.
fn parameters(weight: &Tensor, _: &[Range], _: u32) -> Result<Parameters> {
    let mut shapes = vec![per_channel(weight), weight.dims().to_vec(), per_channel(weight)];
    if weight.rank() == 4 {
        shapes.push(vec![1, weight.dim(1)?, 1, 1]);
    }
    let zeros = shapes.iter().map(|shape| Tensor::zeros(shape.as_slice(), weight.dtype(), weight.device()));
    Ok(Parameters { fixed: weight.clone(), learned: zeros.collect::<candle_core::Result<_>>()? })
}

/// `s_1`, and `W / (s_1 S_2 s_3 s_4)`; `value` reads a learned tensor or scale.
fn divided(quantizer: &WeightQuantizer, value: impl Fn(&Var) -> Tensor) -> Result<(Tensor, Tensor)> {
    let learned: Vec<Tensor> = quantizer.learned.iter().map(&value).collect();
    let grid = plain::mul(&value(&quantizer.scale), &plain::exp(&learned[0])?)?;
    let logarithm = total(&learned[1..])?;
    let weight = quantizer.fixed.to_dtype(grid.dtype())?;
    let v = plain::broadcast_mul(&plain::broadcast_div(&weight, &grid)?, &plain::exp(&plain::neg(&logarithm)?)?)?;
    Ok((grid, v))
}

/// The sum of tensors that are broadcast to the shape of the first.
fn total(terms: &[Tensor]) -> Result<Tensor> {
    let (first, rest) = (&terms[0], &terms[1..]);
    Ok(rest.iter().try_fold(first.clone(), |sum, term| plain::broadcast_add(&sum, term))?)
}

/// Gradient: to the scales too, where they are trained beside `s_1`, which they are a factor of.
fn soft(quantizer: &WeightQuantizer, _: Option<Regulariser>) -> Result<SoftWeight> {
    let _span = trace_span!("division rounding").entered();
    let (_, zero_point, highest) = quantizer.constants()?;
    let (grid, v) = divided(quantizer, |var| var.as_tensor().clone())?;
    let (slope, level) = straight_through_levels(&v, &zero_point, highest)?;
    // The second term is 0 and has the gradient.
    let level = plain::add(&level, &plain::mul(&slope, &plain::sub(&v, &v.detach())?)?)?;
    Ok(SoftWeight { weight: plain::broadcast_mul(&level, &grid)?, penalty: None })
}

fn hard(quantizer: &WeightQuantizer) -> Result<Tensor> {
    let (_, zero_point, highest) = quantizer.constants()?;
    let (grid, v) = divided(quantizer, Var::as_detached_tensor)?;
    let (_, level) = straight_through_levels(&v, &zero_point, highest)?;
    Ok(level.broadcast_mul(&grid)?)
}

/// `s_1`.
fn step(quantizer: &WeightQuantizer) -> Result<Tensor> {
    Ok(divided(quantizer, Var::as_detached_tensor)?.0)
}

/// With `e` the derivative of the logarithm of all divisors, `v = W / (s_1 S_2 s_3 s_4)` moves by `-v e`.
fn dual(quantizer: &WeightQuantizer, direction: Option<&WeightQuantizer>, mode: &DualMode) -> Result<Dual> {
    if !mode.soft {
        return Ok(Dual::constant(hard(quantizer)?));
    }
    let (_, zero_point, highest) = quantizer.constants()?;
    let (grid, v) = divided(quantizer, |var| mode.parameter(var))?;
    let Linearised { slope, level } = mode.roundings.next(|| {
        let v = v.detach();
        let (slope, level) = straight_through_levels(&v, &zero_point, highest)?;
        Ok(Linearised { level: (level - (&slope * v)?)?, slope })
    })?;
    let moving = (&slope * &v)?;
    let level = (&moving + level)?;
    let tangent = direction.map(|direction| -> Result<Option<Tensor>> {
        let moved: Vec<Tensor> = direction.learned.iter().map(Var::as_detached_tensor).collect();
        let of_scale = (direction.scale.as_detached_tensor() / mode.parameter(&quantizer.scale))?;
        let of_grid = (&moved[0] + of_scale)?;
        let e = total(&moved[1..])?.broadcast_add(&of_grid)?;
        let of_level = (moving * e)?.neg()?.broadcast_mul(&grid)?;
        sum(Some(level.broadcast_mul(&(&grid * of_grid)?)?), Some(of_level))
    });
    Ok(Dual { value: level.broadcast_mul(&grid)?, tangent: tangent.transpose()?.flatten() })
}

fn penalty(_: &WeightQuantizer, _: Option<&WeightQuantizer>, _: Regulariser) -> Result<Option<Dual>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::noise;
    use crate::ops::dual::Roundings;
    use crate::recipe::RoundingName;
    use candle_core::DType;
    use std::cell::{Cell, RefCell};

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
    }

    /// A convolution's weight at 2 bits in ranges that clip some of it; all that is learned is off its start by up to `shift`.
    fn quantizer(rounding: RoundingName, shift: f64) -> (Tensor, WeightQuantizer) {
        let weight = noise((3, 2, 3, 3), 1, DType::F32);
        let ranges: Vec<Range> =
            [(0.4, 1.0), (0.5, 2.0), (0.3, 1.0)].map(|(scale, zero_point)| Range { scale, zero_point }).to_vec();
        let quantizer = WeightQuantizer::new(&weight, &ranges, 2, rounding).unwrap();
        for (seed, var) in quantizer.learned.iter().enumerate() {
            let moved = (noise(var.dims(), 10 + seed as u64, DType::F32) * shift).unwrap();
            var.set(&(var.as_detached_tensor() + moved).unwrap()).unwrap();
        }
        (weight, quantizer)
    }

    #[test]
    fn it_starts_as_rounding_to_nearest() {
        let ((_, ours), (_, nearest)) =
            (quantizer(RoundingName::Flexround, 0.0), quantizer(RoundingName::Nearest, 0.0));
        assert_eq!(
            ours.learned.iter().map(|var| var.dims().to_vec()).collect::<Vec<_>>(),
            [vec![3, 1, 1, 1], vec![3, 2, 3, 3], vec![3, 1, 1, 1], vec![1, 2, 1, 1]]
        );
        assert_eq!(values(&ours.hard().unwrap()), values(&nearest.hard().unwrap()));
    }

    #[test]
    fn weights_are_those_of_the_formula_while_they_are_learned_and_afterwards() {
        let (weight, quantizer) = quantizer(RoundingName::Flexround, 0.5);
        let learned: Vec<Vec<f64>> = quantizer.learned.iter().map(|var| values(var)).collect();
        let scales = values(&quantizer.scale);
        let zero_points = [1.0, 2.0, 1.0];
        let expected: Vec<f64> = values(&weight)
            .into_iter()
            .enumerate()
            .map(|(at, w)| {
                let (channel, input) = (at / 18, at / 9 % 2);
                let s_1 = scales[channel] * learned[0][channel].exp();
                let others = (learned[1][at] + learned[2][channel] + learned[3][input]).exp();
                let q = ((w / (s_1 * others)).round_ties_even() + zero_points[channel]).clamp(0.0, 3.0);
                s_1 * (q - zero_points[channel])
            })
            .collect();
        for weight in [quantizer.hard().unwrap(), quantizer.soft(None).unwrap().weight] {
            for (ours, expected) in values(&weight).into_iter().zip(&expected) {
                assert!((ours - expected).abs() < 1e-6, "{ours}, not {expected}");
            }
        }
    }

    #[test]
    fn gradients_and_tangents_are_central_differences_of_what_is_left_of_it_between_roundings() {
        let (_, single) = quantizer(RoundingName::Flexround, 0.5);
        let double = single.copy(DType::F64).unwrap();
        let upstream = noise((3, 2, 3, 3), 2, DType::F64);
        let recorded = Roundings::Record(RefCell::new(Vec::new()));
        let loss = |quantizer: &WeightQuantizer, direction: Option<&WeightQuantizer>, roundings: &Roundings| {
            let mode = DualMode { soft: true, learns: true, roundings };
            let weight = dual(quantizer, direction, &mode).unwrap();
            weight.map(|weight| Ok((weight * &upstream)?.sum_all()?)).unwrap()
        };
        let exact = loss(&double, None, &recorded).value.backward().unwrap();
        let soft = (single.soft(None).unwrap().weight * upstream.to_dtype(DType::F32).unwrap()).unwrap();
        let fused = soft.sum_all().unwrap().backward().unwrap();
        let Roundings::Record(recorded) = recorded else { panic!("recorded above") };
        let recorded = recorded.into_inner();
        let replayed = |quantizer: &WeightQuantizer, direction: Option<&WeightQuantizer>| {
            loss(quantizer, direction, &Roundings::Replay(recorded.clone(), Cell::new(0)))
        };
        let all = |quantizer: &WeightQuantizer| -> Vec<Var> {
            quantizer.learned.iter().chain([&quantizer.scale]).cloned().collect()
        };
        for (index, (var, single)) in all(&double).iter().zip(all(&single)).enumerate() {
            let direction = double.copy(DType::F64).unwrap();
            for (other, zero) in all(&direction).iter().enumerate() {
                let moves = if other == index { 1.0 } else { 0.0 };
                zero.set(&(noise(zero.dims(), 20 + other as u64, DType::F64) * moves).unwrap()).unwrap();
            }
            let step = all(&direction)[index].as_detached_tensor();
            let start = var.as_detached_tensor().copy().unwrap();
            let at = |h: f64| {
                var.set(&(&start + (&step * h).unwrap()).unwrap()).unwrap();
                let value = values(&replayed(&double, None).value)[0];
                var.set(&start).unwrap();
                value
            };
            let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
            let along = |gradient: &Tensor| {
                values(gradient).into_iter().zip(values(&step)).map(|(gradient, step)| gradient * step).sum::<f64>()
            };
            let tangent = values(&replayed(&double, Some(&direction)).tangent.unwrap())[0];
            let (exact, fused) = (along(exact.get(var).unwrap()), along(fused.get(&single).unwrap()));
            assert!(numeric.abs() > 1e-3, "{index}: {numeric}");
            for (name, ours, tolerance) in [("gradient", exact, 1e-7), ("tangent", tangent, 1e-7), ("f32", fused, 1e-4)]
            {
                assert!(
                    (ours - numeric).abs() < tolerance * numeric.abs().max(1.0),
                    "{index} {name}: {ours} {numeric}"
                );
            }
        }
    }
}
