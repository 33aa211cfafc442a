//! What is random of a step that trains `T`.

use super::config::Meta;
use super::sample::Mix;
use crate::recipe::Sampling;
use crate::recon::batches;
use crate::rng::{Purpose, Stream};
use std::ops::Range;

/// Everything random of one step but the masks.
pub struct Draw {
    /// Images that are transformed.
    pub rows: Vec<u32>,
    /// Images on which the updated unit is judged.
    pub outer_rows: Vec<u32>,
    /// Of transformed and of original images.
    pub mixes: [Mix; 2],
}

impl Draw {
    /// Of step `t` (from 1), among so many calibration images.
    pub fn new(images: usize, meta: &Meta, stream: Stream, t: usize) -> Self {
        let (transformed, judging) = meta.validation.split(images);
        let drawn = |from: &Range<usize>, sampling: Sampling, batch: usize, purpose: Purpose| -> Vec<u32> {
            let rows = batches::rows(sampling, from.len(), batch, stream.purpose(purpose), t);
            rows.into_iter().map(|row| row + from.start as u32).collect()
        };
        let rows = drawn(&transformed, Sampling::Epochs, meta.batch, Purpose::MetaBatch);
        let outer_rows = drawn(&judging, Sampling::Permutation, meta.outer_batch, Purpose::MetaOuter);
        let batch = rows.len();
        let mix = |side: u64| {
            let stream = stream.purpose(Purpose::MetaMixup).at(t as u64).at(side);
            let share = beta_4_4(stream.at(0));
            // The larger share stays with the image itself, as published.
            Mix { share: share.max(1.0 - share), partners: stream.at(1).permutation(batch) }
        };
        Self { rows, outer_rows, mixes: [mix(0), mix(1)] }
    }
}

/// A draw from Beta(4, 4): the median of seven uniform numbers.
fn beta_4_4(stream: Stream) -> f64 {
    let mut draws: Vec<f64> = (0..7).map(|i| stream.unit(i)).collect();
    draws.sort_by(f64::total_cmp);
    draws[3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch;
    use crate::meta::config::Validation;
    use std::collections::BTreeSet;

    #[test]
    fn held_out_images_are_never_transformed() {
        let arch = arch::find("resnet20").unwrap();
        let of = |validation: Validation| Meta { batch: 3, outer_batch: 3, validation, ..Meta::published(arch) };
        let seen = |meta: &Meta| {
            let draws = (1..40).map(|t| Draw::new(7, meta, Stream::new(5), t));
            let (mut inner, mut outer) = (BTreeSet::new(), BTreeSet::new());
            for draw in draws {
                assert_eq!((draw.rows.len(), draw.outer_rows.len()), (3, 3));
                inner.extend(draw.rows);
                outer.extend(draw.outer_rows);
            }
            (inner, outer)
        };
        assert_eq!(seen(&of(Validation::HeldOut)), ((0..4).collect(), (4..7).collect()));
        assert_eq!(seen(&of(Validation::Calibration)), ((0..7).collect(), (0..7).collect()));
    }

    #[test]
    fn mixing_shares_follow_beta_4_4() {
        let n = 20_000;
        let draws: Vec<f64> = (0..n).map(|i| beta_4_4(Stream::new(3).at(i))).collect();
        let mean = draws.iter().sum::<f64>() / n as f64;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / n as f64;
        // Mean 1/2, variance 1/36; within five standard deviations of the estimates.
        assert!((mean - 0.5).abs() < 0.006 && (variance - 1.0 / 36.0).abs() < 0.0014, "{mean} {variance}");
    }
}
