//! The values whose range is searched: on the host, or where a GPU has them.

use super::{EXPONENT, Range};
use crate::error::Result;
#[cfg(feature = "cuda")]
use crate::ops::cuda::Searched;
use crate::ops::power::power;
use crate::ops::{BLOCK, block_sums};
use rayon::prelude::*;

/// Blocks whose sums are held at once.
const GROUP: usize = 64;

/// What a search asks of the values.
pub trait Values: Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// Their smallest and largest, and whether all are numbers.
    fn extremes(&self) -> Result<Extremes>;

    /// How many lie in each of `bins` bins of `width` above `min`, the last of which has no end; all are finite.
    fn histogram(&self, min: f64, width: f64, bins: usize) -> Result<Vec<u32>>;

    /// `sum |Q(x) - x|^2.4` of every candidate.
    ///
    /// All candidates see one block of values after the other: the values come from memory once, not once per candidate. Sums
    /// are over blocks, which are added in their order.
    fn errors(&self, candidates: &[Range], highest: f32) -> Result<Vec<f64>>;

    /// The values themselves, where they can be looked at one by one.
    fn on_host(&self) -> Option<&[f32]>;
}

/// How far values reach.
#[derive(Clone, Copy, Debug)]
pub struct Extremes {
    /// NaN left out; infinite where there is nothing else.
    pub min: f32,
    pub max: f32,
    pub is_finite: bool,
}

impl Extremes {
    const OF_NOTHING: Extremes = Extremes { min: f32::INFINITY, max: f32::NEG_INFINITY, is_finite: true };

    fn and(self, other: Extremes) -> Extremes {
        let is_finite = self.is_finite && other.is_finite;
        Extremes { min: self.min.min(other.min), max: self.max.max(other.max), is_finite }
    }

    pub fn of(values: &[f32]) -> Extremes {
        // A loop each: both together would not become vector instructions.
        let of_block = |block: &[f32]| {
            let (min, max) =
                block.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &x| (min.min(x), max.max(x)));
            Extremes { min, max, is_finite: block.iter().fold(true, |all, x| all & x.is_finite()) }
        };
        values.par_chunks(BLOCK).map(of_block).reduce(|| Extremes::OF_NOTHING, Extremes::and)
    }
}

impl Values for [f32] {
    fn count(&self) -> usize {
        self.len()
    }

    fn extremes(&self) -> Result<Extremes> {
        Ok(Extremes::of(self))
    }

    fn histogram(&self, min: f64, width: f64, bins: usize) -> Result<Vec<u32>> {
        let bin = |x: f32| (((f64::from(x) - min) / width) as usize).min(bins - 1);
        let count = |part: &[f32]| {
            let mut counts = vec![0u32; bins];
            part.iter().for_each(|x| counts[bin(*x)] += 1);
            counts
        };
        let parts = self.par_chunks(self.len().div_ceil(rayon::current_num_threads()).max(bins)).map(count);
        Ok(parts.reduce(Vec::new, |a, b| match a.is_empty() {
            true => b,
            false => a.iter().zip(b).map(|(a, b)| a + b).collect(),
        }))
    }

    fn errors(&self, candidates: &[Range], highest: f32) -> Result<Vec<f64>> {
        let mut errors = vec![0.0; candidates.len()];
        for group in self.chunks(GROUP * BLOCK) {
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
        Ok(errors)
    }

    fn on_host(&self) -> Option<&[f32]> {
        Some(self)
    }
}

#[cfg(feature = "cuda")]
impl Values for Searched {
    fn count(&self) -> usize {
        Searched::count(self)
    }

    fn extremes(&self) -> Result<Extremes> {
        let blocks = Searched::extremes(self)?.map(|(min, max, is_finite)| Extremes { min, max, is_finite });
        Ok(blocks.fold(Extremes::OF_NOTHING, Extremes::and))
    }

    fn histogram(&self, min: f64, width: f64, bins: usize) -> Result<Vec<u32>> {
        Ok(Searched::histogram(self, min, width, bins)?)
    }

    fn errors(&self, candidates: &[Range], highest: f32) -> Result<Vec<f64>> {
        let [scales, zero_points]: [Vec<f32>; 2] = [|range: &Range| range.scale, |range: &Range| range.zero_point]
            .map(|of| candidates.iter().map(of).collect());
        Ok(Searched::errors(self, &scales, &zero_points, highest, EXPONENT)?)
    }

    fn on_host(&self) -> Option<&[f32]> {
        None
    }
}
