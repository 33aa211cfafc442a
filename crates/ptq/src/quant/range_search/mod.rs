//! Starting scales: the candidate range with the smallest mean `|Q(x) - x|^2.4`.
//!
//! Every search of the published codes is a list of candidate `(scale, zero_point)` pairs, tried in order; a strictly
//! better candidate wins.

mod screen;
pub mod values;

use crate::error::Result;
#[cfg(feature = "cuda")]
use crate::ops::cuda::Searched;
use crate::recipe::RangeSearch;
use candle_core::Tensor;
use rayon::prelude::*;
use values::{Extremes, Values};

/// Exponent of the error, the same in all published codes.
const EXPONENT: f32 = 2.4;
/// Smallest scale: an all-zero tensor must not divide by zero.
const MIN_SCALE: f32 = 1e-8;
/// So few values are searched faster on the host, wherever they are.
#[cfg(feature = "cuda")]
const FEW_VALUES: usize = 1 << 14;

/// Scale and zero point of a uniform quantizer `scale * (clip(round(x / scale) + zero_point, 0, 2^b - 1) - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub scale: f32,
    /// An integer; outside `0..2^b` when the searched range does not contain 0.
    pub zero_point: f32,
}

impl Range {
    /// `scale = (max - min) / (2^b - 1)`, `zero_point = round(-min / scale)`.
    fn between(min: f32, max: f32, highest: f32) -> Self {
        let scale = ((max - min) / highest).max(MIN_SCALE);
        Self { scale, zero_point: (-min / scale).round_ties_even() }
    }

    /// Integer levels before the zero point is subtracted become `[-zero_point, highest - zero_point]` after it.
    pub fn levels(&self, bits: u32) -> (f32, f32) {
        (-self.zero_point, highest(bits) - self.zero_point)
    }

    /// `Q(x)`.
    #[inline(always)]
    fn quantize(&self, x: f32, highest: f32) -> f32 {
        let level = ((x / self.scale).round_ties_even() + self.zero_point).max(0.0).min(highest);
        (level - self.zero_point) * self.scale
    }
}

/// `2^b - 1`.
pub fn highest(bits: u32) -> f32 {
    ((1u32 << bits) - 1) as f32
}

/// Ranges of a weight, one per output channel.
///
/// `values`: row-major, `channels` equal runs. QDrop's search treats all channels as one-sided if the whole tensor is.
pub fn search_weight(values: &[f32], channels: usize, search: RangeSearch, bits: u32) -> Result<Vec<Range>> {
    let sides = Sides::of(Extremes::of(values));
    let of_channel = |channel: &[f32]| {
        let extremes = Extremes::of(channel);
        best(channel, extremes, &weight_candidates(extremes, sides, search, bits), bits)
    };
    values.par_chunks(values.len() / channels).map(of_channel).collect()
}

/// Range of an activation tensor, of any shape. Many values on a GPU are looked at there; the range is the same.
///
/// Errors: values that cannot be read from their device.
pub fn search_act(x: &Tensor, search: RangeSearch, bits: u32) -> Result<Range> {
    #[cfg(feature = "cuda")]
    if x.elem_count() >= FEW_VALUES
        && let Some(values) = Searched::of(x)?
    {
        return act_range(&values, search, bits);
    }
    act_range(&x.flatten_all()?.to_vec1::<f32>()?[..], search, bits)
}

fn act_range<V: Values + ?Sized>(values: &V, search: RangeSearch, bits: u32) -> Result<Range> {
    let extremes = values.extremes()?;
    let found = best(values, extremes, &act_candidates(extremes, search, bits), bits)?;
    Ok(match search {
        // Half of an odd number of steps is below 0: which way its zero point was rounded during the search, a matter of
        // float noise, decides which scale wins; the quantizer itself has its zero at level 2^(b-1).
        RangeSearch::Genie if found.zero_point != 0.0 => Range { zero_point: (1u32 << (bits - 1)) as f32, ..found },
        _ => found,
    })
}

/// On which sides of 0 a tensor has values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sides {
    Positive,
    Negative,
    Both,
}

impl Sides {
    fn of(extremes: Extremes) -> Self {
        match extremes {
            Extremes { min, .. } if min >= 0.0 => Sides::Positive,
            Extremes { max, .. } if max <= 0.0 => Sides::Negative,
            _ => Sides::Both,
        }
    }
}

/// Of a channel that reaches so far, in a tensor that has values on these sides.
fn weight_candidates(channel: Extremes, sides: Sides, search: RangeSearch, bits: u32) -> Vec<Range> {
    let Extremes { min, max, .. } = channel;
    match search {
        RangeSearch::MinMax => vec![Range::between(min.min(0.0), max.max(0.0), highest(bits))],
        RangeSearch::Brecq => shrunk(min, max, 80, bits),
        RangeSearch::Genie => shrunk(min, max, 100, bits),
        RangeSearch::Qdrop => thresholds(min, max, sides, bits),
    }
}

fn act_candidates(extremes: Extremes, search: RangeSearch, bits: u32) -> Vec<Range> {
    let Extremes { min, max, .. } = extremes;
    match search {
        RangeSearch::MinMax => vec![Range::between(min.min(0.0), max.max(0.0), highest(bits))],
        RangeSearch::Brecq => shrunk(min, max, 80, bits),
        RangeSearch::Genie => symmetric(min, max, bits),
        RangeSearch::Qdrop => thresholds(min, max, Sides::of(extremes), bits),
    }
}

/// The first `n` of the ratios 1.00, 0.99, ... .
fn ratios(n: usize) -> impl Iterator<Item = f32> {
    (0..n).map(|i| (1.0 - 0.01 * i as f64) as f32)
}

/// BRECQ, and Genie's weights: minimum and maximum shrunk together.
fn shrunk(min: f32, max: f32, n: usize, bits: u32) -> Vec<Range> {
    ratios(n).map(|ratio| Range::between(min * ratio, max * ratio, highest(bits))).collect()
}

/// Genie's activations: `[-absmax, absmax]` if anything is negative, else `[0, max]`; shrunk.
fn symmetric(min: f32, max: f32, bits: u32) -> Vec<Range> {
    let limit = min.abs().max(max.abs());
    let below = if min < 0.0 { -limit } else { 0.0 };
    ratios(100).map(|ratio| Range::between(below * ratio, limit * ratio, highest(bits))).collect()
}

/// QDrop: 100 thresholds; for two-sided values each with every zero point.
fn thresholds(min: f32, max: f32, sides: Sides, bits: u32) -> Vec<Range> {
    let highest = highest(bits);
    let clamped = |min: f32, max: f32| {
        let range = Range::between(min.min(0.0), max.max(0.0), highest);
        Range { zero_point: range.zero_point.max(0.0).min(highest), ..range }
    };
    let steps = (1..=100).map(|i| i as f32);
    match sides {
        Sides::Both => {
            let width = max.max(0.0) - min.min(0.0);
            steps
                .flat_map(|i| {
                    let wide = width / 100.0 * i;
                    let step = wide / highest;
                    (0..=highest as u32).map(move |zero| (zero as f32 * step, wide - zero as f32 * step))
                })
                .map(|(below, above)| clamped(-below, above))
                .collect()
        }
        one_sided => {
            let width = min.abs().max(max);
            steps
                .map(|i| width / 100.0 * i)
                .map(|wide| if one_sided == Sides::Positive { clamped(0.0, wide) } else { clamped(-wide, 0.0) })
                .collect()
        }
    }
}

/// The first candidate with the smallest error.
fn best<V: Values + ?Sized>(values: &V, extremes: Extremes, candidates: &[Range], bits: u32) -> Result<Range> {
    let candidates = screen::promising(values, extremes, candidates, highest(bits))?;
    Ok(first_of_smallest(&candidates, &values.errors(&candidates, highest(bits))?))
}

fn first_of_smallest(candidates: &[Range], errors: &[f64]) -> Range {
    let first = (candidates[0], errors[0]);
    let both = candidates.iter().zip(errors);
    both.fold(first, |best, (candidate, &error)| if error < best.1 { (*candidate, error) } else { best }).0
}
