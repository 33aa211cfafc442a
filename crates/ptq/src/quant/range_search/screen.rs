//! Leaving out candidates that cannot win, before those that can are compared value by value.
//!
//! `|Q(x) - x|` is the distance of `x` from the nearest level, which changes by at most as much as `x` does. If every value
//! in a bin is within `r` of its centre `c`, the error of its values is therefore between `max(|Q(c) - c| - r, 0)^2.4` and
//! `(|Q(c) - c| + r)^2.4` each: a histogram gives both a lower and an upper bound for the error of a candidate. Whose lower
//! bound is above the smallest upper bound has lost. What is left is decided by finer histograms, and in the end, outside,
//! by the values: the winner is the one of a search without bounds.
//!
//! A two-sided tensor at 8 bits has 25,600 candidates, and an activation of an ImageNet network 10^7 values.

use super::values::{Extremes, Values};
use super::{EXPONENT, Range};
use crate::error::Result;
use crate::ops::power::power;
use crate::ops::{lane_sum, vectorised};
use rayon::prelude::*;

/// So few candidates are compared value by value at once.
const FEW: usize = 16;
/// Bins of one histogram after the other.
const BINS: [usize; 3] = [1 << 12, 1 << 16, 1 << 20];
/// A histogram must have so many values per bin, or the values themselves are as good.
const VALUES_PER_BIN: usize = 4;
/// Candidates that the first upper bound comes from.
const SAMPLE: usize = 256;
/// Points after which a sum is compared with the bound.
const CHUNK: usize = 64;
/// By how much a computed error may differ from the exact one: that of `power` for the smallest distances, ten times over.
const SLACK: f64 = 1e-3;

/// Those of `candidates`, in their order, that may have the smallest error.
pub(super) fn promising<V: Values + ?Sized>(
    values: &V,
    extremes: Extremes,
    candidates: &[Range],
    highest: f32,
) -> Result<Vec<Range>> {
    let mut left = candidates.to_vec();
    // Errors that are no numbers are compared by nobody's bounds.
    if left.len() <= FEW || !extremes.is_finite {
        return Ok(left);
    }
    for bins in BINS {
        let is_small = values.count() < VALUES_PER_BIN * bins;
        let points = match (is_small, values.on_host()) {
            (false, _) => Points::histogram(values, extremes, bins)?,
            (true, Some(values)) => Points::of(values),
            (true, None) => break,
        };
        left = points.undecided(&left, highest);
        if is_small || left.len() <= FEW {
            break;
        }
    }
    Ok(left)
}

/// Values, or what stands for many.
struct Points {
    /// Those farthest from 0 first: most candidates lose by what they clip.
    values: Vec<f32>,
    /// How many each stands for.
    counts: Vec<f32>,
    /// How far they are from what they stand for, at most.
    radius: f32,
}

impl Points {
    fn of(values: &[f32]) -> Points {
        let mut values = values.to_vec();
        values.sort_unstable_by(|a, b| b.abs().total_cmp(&a.abs()));
        Points { counts: vec![1.0; values.len()], values, radius: 0.0 }
    }

    fn histogram<V: Values + ?Sized>(values: &V, extremes: Extremes, bins: usize) -> Result<Points> {
        let [min, max] = [extremes.min, extremes.max].map(f64::from);
        let width = ((max - min) / bins as f64).max(f64::MIN_POSITIVE);
        let counts = values.histogram(min, width, bins)?;
        let filled = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let mut points: Vec<(f32, f32)> =
            filled.map(|(bin, count)| ((min + (bin as f64 + 0.5) * width) as f32, *count as f32)).collect();
        points.sort_unstable_by(|(a, _), (b, _)| b.abs().total_cmp(&a.abs()));
        let (values, counts) = points.into_iter().unzip();
        // A little more than half: centres are rounded.
        let rounding = min.abs().max(max.abs()) * f64::from(f32::EPSILON);
        Ok(Points { values, counts, radius: (0.5 * width + rounding) as f32 })
    }

    /// Those of `candidates` that these points do not show to have lost.
    fn undecided(&self, candidates: &[Range], highest: f32) -> Vec<Range> {
        let upper = |range: &Range, limit: f64| self.error(*range, highest, self.radius, limit);
        let sample: Vec<&Range> = candidates.iter().step_by(candidates.len().div_ceil(SAMPLE)).collect();
        let least = sample.par_iter().map(|range| upper(range, f64::INFINITY)).reduce(|| f64::INFINITY, f64::min);
        let limit = least * (1.0 + SLACK);
        let lower = |range: &Range| (*range, self.error(*range, highest, -self.radius, limit));
        let left: Vec<(Range, f64)> = candidates.par_iter().map(lower).filter(|(_, error)| *error <= limit).collect();
        let uppers = left.par_iter().map(|(range, lower)| match self.radius == 0.0 {
            true => *lower,
            false => upper(range, limit),
        });
        let least = uppers.reduce(|| least, f64::min);
        left.into_iter().filter(|(_, error)| *error <= least * (1.0 + SLACK)).map(|(range, _)| range).collect()
    }

    /// Sum of `(|Q(x) - x| + radius)^2.4`, at least 0 each; not all of it if that is above `limit`.
    fn error(&self, range: Range, highest: f32, radius: f32, limit: f64) -> f64 {
        vectorised(
            #[inline(always)]
            || {
                let (mut terms, mut sum) = ([0f32; CHUNK], 0.0);
                for (values, counts) in self.values.chunks(CHUNK).zip(self.counts.chunks(CHUNK)) {
                    for ((term, &x), &count) in terms.iter_mut().zip(values).zip(counts) {
                        let distance = (range.quantize(x, highest) - x).abs() + radius;
                        *term = count * power(distance.max(0.0), EXPONENT);
                    }
                    sum += lane_sum(&terms[..values.len()]);
                    if sum > limit {
                        break;
                    }
                }
                sum
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::{act_candidates, first_of_smallest, highest};
    use super::*;
    use crate::recipe::RangeSearch;
    use crate::rng::Stream;

    /// Sums of four uniform numbers, around 0.
    fn normal(n: usize, seed: u64) -> Vec<f32> {
        let stream = Stream::new(seed);
        (0..n as u64).map(|i| (0..4).map(|j| stream.unit(4 * i + j) as f32).sum::<f32>() - 2.0).collect()
    }

    /// What activations and weights look like, and what is hard: outliers, values on a grid, constants, nothing but zeros.
    fn tensors() -> Vec<(&'static str, Vec<f32>)> {
        let rectified: Vec<f32> = normal(17_000, 1).iter().map(|x| (3.0 * x).clamp(0.0, 6.0)).collect();
        let mut outlier = normal(17_000, 2);
        outlier[17] = 40.0;
        let grid: Vec<f32> = normal(17_000, 3).iter().map(|x| (x * 8.0).round() / 8.0).collect();
        vec![
            ("a filter", normal(27, 4)),
            ("a long filter", normal(1152, 5)),
            ("two-sided", normal(17_000, 6)),
            ("rectified", rectified),
            ("an outlier", outlier),
            ("on a grid", grid),
            ("negative", normal(17_000, 7).iter().map(|x| -x.abs()).collect()),
            ("a constant", vec![0.3; 17_000]),
            ("zeros", vec![0.0; 17_000]),
            ("shifted", normal(17_000, 8).iter().map(|x| x + 100.0).collect()),
            ("tiny", normal(17_000, 9).iter().map(|x| x * 1e-20).collect()),
        ]
    }

    #[test]
    fn the_winner_is_that_of_a_search_without_bounds() {
        for (what, values) in tensors() {
            // Of the short ones every candidate of 8 bits.
            let most = if values.len() < 2000 { 8 } else { 4 };
            for (search, bits) in
                [(RangeSearch::Qdrop, 2), (RangeSearch::Qdrop, most), (RangeSearch::Brecq, 4), (RangeSearch::Genie, 8)]
            {
                let (values, extremes, highest) = (&values[..], Extremes::of(&values), highest(bits));
                let candidates = act_candidates(extremes, search, bits);
                let all = first_of_smallest(&candidates, &values.errors(&candidates, highest).unwrap());
                let left = promising(values, extremes, &candidates, highest).unwrap();
                let screened = first_of_smallest(&left, &values.errors(&left, highest).unwrap());
                assert_eq!(all, screened, "{what}, {search:?} at {bits} bits");
            }
        }
    }

    #[test]
    fn most_candidates_lose_without_a_look_at_the_values() {
        let values = normal(100_000, 1);
        let extremes = Extremes::of(&values);
        let candidates = act_candidates(extremes, RangeSearch::Qdrop, 8);
        assert_eq!(candidates.len(), 25_600);
        let left = promising(&values[..], extremes, &candidates, highest(8)).unwrap().len();
        assert!(left < 500, "{left} are left");
    }

    #[test]
    fn what_is_not_finite_keeps_all_candidates() {
        let candidates = act_candidates(Extremes::of(&[-1.0, 2.0]), RangeSearch::Qdrop, 4);
        let values = [1.0, f32::NAN];
        let left = promising(&values[..], Extremes::of(&values), &candidates, 15.0).unwrap();
        assert_eq!(left.len(), candidates.len());
    }
}
