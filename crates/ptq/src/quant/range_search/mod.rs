//! Starting scales: the candidate range with the smallest mean `|Q(x) - x|^2.4`.
//!
//! Every search of the published codes is a list of candidate `(scale, zero_point)` pairs, tried in order; a strictly
//! better candidate wins.

mod screen;

use crate::ops::power::power;
use crate::ops::{BLOCK, block_sums};
use crate::recipe::RangeSearch;
use rayon::prelude::*;

/// Exponent of the error, the same in all published codes.
const EXPONENT: f32 = 2.4;
/// Smallest scale: an all-zero tensor must not divide by zero.
const MIN_SCALE: f32 = 1e-8;
/// Blocks whose sums are held at once.
const GROUP: usize = 64;

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
pub fn search_weight(values: &[f32], channels: usize, search: RangeSearch, bits: u32) -> Vec<Range> {
    let sides = Sides::of(values);
    values
        .par_chunks(values.len() / channels)
        .map(|channel| best(channel, &weight_candidates(channel, sides, search, bits), bits))
        .collect()
}

/// Range of an activation tensor.
pub fn search_act(values: &[f32], search: RangeSearch, bits: u32) -> Range {
    let found = best(values, &act_candidates(values, search, bits), bits);
    match search {
        // Half of an odd number of steps is below 0: which way its zero point was rounded during the search, a matter of
        // float noise, decides which scale wins; the quantizer itself has its zero at level 2^(b-1).
        RangeSearch::Genie if found.zero_point != 0.0 => Range { zero_point: (1u32 << (bits - 1)) as f32, ..found },
        _ => found,
    }
}

/// On which sides of 0 a tensor has values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sides {
    Positive,
    Negative,
    Both,
}

impl Sides {
    fn of(values: &[f32]) -> Self {
        match min_max(values) {
            (min, _) if min >= 0.0 => Sides::Positive,
            (_, max) if max <= 0.0 => Sides::Negative,
            _ => Sides::Both,
        }
    }
}

fn min_max(values: &[f32]) -> (f32, f32) {
    values
        .par_chunks(1 << 16)
        .map(|chunk| chunk.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &x| (min.min(x), max.max(x))))
        .reduce(|| (f32::INFINITY, f32::NEG_INFINITY), |a, b| (a.0.min(b.0), a.1.max(b.1)))
}

fn weight_candidates(channel: &[f32], sides: Sides, search: RangeSearch, bits: u32) -> Vec<Range> {
    let (min, max) = min_max(channel);
    match search {
        RangeSearch::MinMax => vec![Range::between(min.min(0.0), max.max(0.0), highest(bits))],
        RangeSearch::Brecq => shrunk(min, max, 80, bits),
        RangeSearch::Genie => shrunk(min, max, 100, bits),
        RangeSearch::Qdrop => thresholds(min, max, sides, bits),
    }
}

fn act_candidates(values: &[f32], search: RangeSearch, bits: u32) -> Vec<Range> {
    let (min, max) = min_max(values);
    match search {
        RangeSearch::MinMax => vec![Range::between(min.min(0.0), max.max(0.0), highest(bits))],
        RangeSearch::Brecq => shrunk(min, max, 80, bits),
        RangeSearch::Genie => symmetric(min, max, bits),
        RangeSearch::Qdrop => thresholds(min, max, Sides::of(values), bits),
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
fn best(values: &[f32], candidates: &[Range], bits: u32) -> Range {
    let candidates = screen::promising(values, candidates, highest(bits));
    first_of_smallest(&candidates, &errors(values, &candidates, highest(bits)))
}

fn first_of_smallest(candidates: &[Range], errors: &[f64]) -> Range {
    let first = (candidates[0], errors[0]);
    let both = candidates.iter().zip(errors);
    both.fold(first, |best, (candidate, &error)| if error < best.1 { (*candidate, error) } else { best }).0
}

/// `sum |Q(x) - x|^2.4` of every candidate.
///
/// All candidates see one block of values after the other: the values come from memory once, not once per candidate. Sums
/// are over blocks, which are added in their order.
fn errors(values: &[f32], candidates: &[Range], highest: f32) -> Vec<f64> {
    let mut errors = vec![0.0; candidates.len()];
    for group in values.chunks(GROUP * BLOCK) {
        let sums: Vec<Vec<f64>> = group
            .par_chunks(BLOCK)
            .map(|block| {
                block_sums(block, candidates, |range, x| power((range.quantize(x, highest) - x).abs(), EXPONENT))
            })
            .collect();
        for sums in sums {
            errors.iter_mut().zip(sums).for_each(|(error, sum)| *error += sum);
        }
    }
    errors
}
