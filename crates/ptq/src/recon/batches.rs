//! Which images form a mini-batch.

use crate::recipe::Sampling;
use crate::rng::Stream;

/// Rows of the mini-batch of step `t` (from 1): `batch` of `images`, or all where there are fewer; random numbers are those of
/// `stream`. A last part of an epoch that is smaller than a batch is left out, as published.
pub fn rows(sampling: Sampling, images: usize, batch: usize, stream: Stream, t: usize) -> Vec<u32> {
    let batch = batch.min(images);
    match sampling {
        Sampling::Epochs => {
            let per_epoch = images / batch;
            let (epoch, within) = ((t - 1) / per_epoch, (t - 1) % per_epoch);
            let order = stream.at(epoch as u64).permutation(images);
            order[within * batch..(within + 1) * batch].to_vec()
        }
        Sampling::Permutation => {
            let mut order = stream.at(t as u64).permutation(images);
            order.truncate(batch);
            order
        }
        Sampling::Replacement => {
            let draws = stream.at(t as u64);
            (0..batch).map(|i| draws.below(i as u64, images) as u32).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_epoch_shows_every_image_once_and_a_permutation_shows_none_twice() {
        let of = |sampling: Sampling, images: usize, t: usize| rows(sampling, images, 4, Stream::new(3), t);
        let epoch = |first: usize| (first..first + 3).flat_map(|t| of(Sampling::Epochs, 12, t)).collect::<Vec<_>>();
        for first in [1, 4] {
            assert_eq!(epoch(first).into_iter().collect::<BTreeSet<_>>(), (0..12).collect());
        }
        assert_ne!(epoch(1), epoch(4));
        // Of 14 images two are left out: the fourth step begins the next epoch.
        assert_eq!(of(Sampling::Epochs, 14, 4), Stream::new(3).at(1).permutation(14)[..4]);
        assert_eq!(of(Sampling::Permutation, 12, 1).into_iter().collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(of(Sampling::Replacement, 12, 1).len(), 4);
        assert_eq!(of(Sampling::Permutation, 3, 1).len(), 3);
    }
}
