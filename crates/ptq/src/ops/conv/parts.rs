//! Partial sums of a weight gradient, each over some images of a batch.

use super::vector::Real;
use crate::ops::sizes::Sizes;

/// Partial sums of matrix products; fixed, so that the order of additions does not depend on the thread count.
pub(super) const PARTS: usize = 8;

/// The gradient to the weight, whose partial sums are `parts`, added in their order.
pub(super) fn sum_of_parts<T: Real>(sizes: &Sizes, parts: Vec<Vec<T>>) -> Vec<T> {
    let mut gw = vec![T::zero(); sizes.weight()];
    for part in parts {
        gw.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    gw
}
