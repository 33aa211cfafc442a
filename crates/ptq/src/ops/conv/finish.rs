//! What becomes of a convolution's sums before they are written, while they are in cache.

use super::vector::Real;
use crate::ops::kernel::{bounded, vectorised};

/// Adds `bias` `(C_out)`, then applies `min(max(., 0), upper)`, which leaves NaN as it is, each where there is one.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a, T> {
    pub bias: Option<&'a [T]>,
    pub upper: Option<T>,
}

impl<T: Real> Finish<'_, T> {
    pub fn bias_of(&self, channel: usize) -> T {
        self.bias.map_or(T::zero(), |bias| bias[channel])
    }

    /// The second of both, on whole images that are otherwise finished.
    pub fn rectify(&self, y: &mut [T]) {
        let Some(upper) = self.upper else { return };
        vectorised(
            #[inline(always)]
            || {
                for y in y {
                    *y = bounded(*y, T::zero(), upper);
                }
            },
        );
    }
}
