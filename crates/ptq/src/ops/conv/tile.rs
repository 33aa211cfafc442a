//! The two inner loops of [`super::direct`]: tiles of sums that stay in vector registers.
//!
//! Lengths are multiples of [`BLOCK`](super::shifted::BLOCK), so that no values are left over by vectors of any width.

use super::vector::Real;
use pulp::{Arch, Simd, WithSimd};
use std::array::from_fn;

/// Channels of a tile.
pub(super) const CHANNELS: usize = 4;

/// Vectors, or rows, that the channels of a tile are multiplied with: 12 sums of the 16 registers there are at least.
const WIDTH: usize = 3;

/// A weight matrix in panels of [`CHANNELS`] rows, column by column; rows that are missing are zeros.
pub(super) struct Panels<T> {
    columns: usize,
    values: Vec<[T; CHANNELS]>,
}

impl<T: Real> Panels<T> {
    pub fn new(rows: usize, columns: usize, value: impl Fn(usize, usize) -> T) -> Panels<T> {
        let value = |row, column| if row < rows { value(row, column) } else { T::zero() };
        let mut values = Vec::with_capacity(rows.div_ceil(CHANNELS) * columns);
        for first in (0..rows).step_by(CHANNELS) {
            values.extend((0..columns).map(|column| from_fn::<T, CHANNELS, _>(|i| value(first + i, column))));
        }
        Panels { columns, values }
    }

    /// Each panel, with the number of its first row. None if there are no columns.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[[T; CHANNELS]])> {
        let panels = self.values.chunks(self.columns.max(1)).enumerate();
        panels.map(|(panel, values)| (panel * CHANNELS, values))
    }
}

/// `out[c, t] = sum_k panel[k][c] * values[rows[k] + t]`; `out` is `(CHANNELS, span)`.
pub(super) fn multiply_panel<T: Real>(
    out: &mut [T],
    span: usize,
    panel: &[[T; CHANNELS]],
    rows: &[usize],
    values: &[T],
) {
    Arch::new().dispatch(MultiplyPanel { out, span, panel, rows, values });
}

/// `sums[c, k] += sum_t weights[c, t] * values[rows[k] + t]`; `sums` is `(channels, rows)` for up to [`CHANNELS`] channels,
/// `weights` `(CHANNELS, span)`.
pub(super) fn add_dots<T: Real>(sums: &mut [T], span: usize, weights: &[T], rows: &[usize], values: &[T]) {
    Arch::new().dispatch(AddDots { sums, span, weights, rows, values });
}

// Types rather than closures: only what is always inlined is compiled for the instructions dispatched to.
struct MultiplyPanel<'a, T> {
    out: &'a mut [T],
    span: usize,
    panel: &'a [[T; CHANNELS]],
    rows: &'a [usize],
    values: &'a [T],
}

impl<T: Real> WithSimd for MultiplyPanel<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let MultiplyPanel { out, span, panel, rows, values } = self;
        let len = WIDTH * size_of::<T::Vector<S>>() / size_of::<T>();
        for t in (0..span).step_by(len) {
            let mut sums = [[T::splat(simd, T::zero()); WIDTH]; CHANNELS];
            for (weights, row) in panel.iter().zip(rows) {
                let pixels = T::vectors::<S>(&values[row + t..][..len]).0;
                for c in 0..CHANNELS {
                    let weight = T::splat(simd, weights[c]);
                    for v in 0..WIDTH {
                        sums[c][v] = T::mul_add(simd, weight, pixels[v], sums[c][v]);
                    }
                }
            }
            for (c, sums) in sums.iter().enumerate() {
                T::vectors_mut::<S>(&mut out[c * span + t..][..len]).0.copy_from_slice(sums);
            }
        }
    }
}

struct AddDots<'a, T> {
    sums: &'a mut [T],
    span: usize,
    weights: &'a [T],
    rows: &'a [usize],
    values: &'a [T],
}

impl<T: Real> WithSimd for AddDots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let AddDots { sums, span, weights, rows, values } = self;
        let weights: [_; CHANNELS] = from_fn(|c| T::vectors::<S>(&weights[c * span..][..span]).0);
        for first in (0..rows.len()).step_by(WIDTH) {
            // At the end the last row stands in for those that are missing.
            let rows_of_tile: [_; WIDTH] = from_fn(|k| rows[(first + k).min(rows.len() - 1)]);
            let pixels = rows_of_tile.map(|row| T::vectors::<S>(&values[row..][..span]).0);
            let mut tile = [[T::splat(simd, T::zero()); WIDTH]; CHANNELS];
            for t in 0..weights[0].len() {
                let pixels = pixels.map(|pixels| pixels[t]);
                for c in 0..CHANNELS {
                    let weight = weights[c][t];
                    for k in 0..WIDTH {
                        tile[c][k] = T::mul_add(simd, weight, pixels[k], tile[c][k]);
                    }
                }
            }
            for (sums, tile) in sums.chunks_exact_mut(rows.len()).zip(tile) {
                for (sum, dot) in sums[first..].iter_mut().zip(tile) {
                    *sum += T::sum(simd, dot);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shifted::BLOCK;
    use super::*;

    /// 5 channels and 4 rows: neither fills its last tile.
    #[test]
    fn incomplete_tiles_are_right() {
        let (channels, rows, span) = (5, [0, 7, 3, 11], 2 * BLOCK);
        let values: Vec<f64> = (0..span + 11).map(|i| ((i * 7) % 13) as f64 - 6.).collect();
        let weight = |c: usize, k: usize| (c * 3 + k * 5) as f64 - 8.;
        let panels = Panels::new(channels, rows.len(), weight);
        let mut seen = 0;
        for (first, panel) in panels.iter() {
            let mut out = vec![f64::NAN; CHANNELS * span];
            multiply_panel(&mut out, span, panel, &rows, &values);
            let mut dots = vec![1.; (channels - first).min(CHANNELS) * rows.len()];
            add_dots(&mut dots, span, &out, &rows, &values);
            for (c, out) in out.chunks_exact(span).enumerate().take(channels - first) {
                for t in 0..span {
                    let expected: f64 = (0..rows.len()).map(|k| weight(first + c, k) * values[rows[k] + t]).sum();
                    assert_eq!(out[t], expected, "channel {c} from {first}, pixel {t}");
                }
                for (k, row) in rows.iter().enumerate() {
                    let expected = 1. + (0..span).map(|t| out[t] * values[row + t]).sum::<f64>();
                    assert_eq!(dots[c * rows.len() + k], expected, "channel {c} from {first}, row {k}");
                }
                seen += 1;
            }
        }
        assert_eq!(seen, channels);
    }
}
