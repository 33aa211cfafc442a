//! The two loops over long vectors behind the depthwise kernels, on the vector instructions of the machine.
//!
//! Lengths are multiples of [`BLOCK`], so that no values are left over by vectors of any width.

use super::vector::Real;
use pulp::{Arch, Simd, WithSimd};

/// A multiple of every vector's length, and of three of them.
pub(super) const BLOCK: usize = 48;

/// `out[t] = sum_i weights[i] * values[offsets[i] + t]`.
pub(super) fn shifted_sum<T: Real>(out: &mut [T], values: &[T], offsets: &[usize], weights: &[T]) {
    debug_assert_eq!(out.len() % BLOCK, 0);
    Arch::new().dispatch(ShiftedSum { out, values, offsets, weights });
}

/// `sums[i] += sum_t weights[t] * values[offsets[i] + t]`: the adjoint of [`shifted_sum`] in its weights.
pub(super) fn shifted_dots<T: Real>(sums: &mut [T], values: &[T], offsets: &[usize], weights: &[T]) {
    debug_assert_eq!(weights.len() % BLOCK, 0);
    Arch::new().dispatch(ShiftedDots { sums, values, offsets, weights });
}

// Types rather than closures: only what is always inlined is compiled for the instructions dispatched to.
struct ShiftedSum<'a, T> {
    out: &'a mut [T],
    values: &'a [T],
    offsets: &'a [usize],
    weights: &'a [T],
}

impl<T: Real> WithSimd for ShiftedSum<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ShiftedSum { out, values, mut offsets, mut weights } = self;
        out.fill(T::zero());
        // Several terms to a pass over `out`; 9 are those of a 3x3 kernel.
        while !weights.is_empty() {
            let terms = match weights.len() {
                9.. => add_terms::<9, S, T>(simd, out, values, offsets, weights),
                4..9 => add_terms::<4, S, T>(simd, out, values, offsets, weights),
                2..4 => add_terms::<2, S, T>(simd, out, values, offsets, weights),
                _ => add_terms::<1, S, T>(simd, out, values, offsets, weights),
            };
            (offsets, weights) = (&offsets[terms..], &weights[terms..]);
        }
    }
}

/// Adds the first `N` terms to `out`; returns `N`.
#[inline(always)]
fn add_terms<const N: usize, S: Simd, T: Real>(
    simd: S,
    out: &mut [T],
    values: &[T],
    offsets: &[usize],
    weights: &[T],
) -> usize {
    let shifted: [_; N] = std::array::from_fn(|i| T::vectors::<S>(&values[offsets[i]..][..out.len()]).0);
    let weights: [_; N] = std::array::from_fn(|i| T::splat(simd, weights[i]));
    for (t, out) in T::vectors_mut::<S>(out).0.iter_mut().enumerate() {
        let mut sum = *out;
        for i in 0..N {
            sum = T::mul_add(simd, weights[i], shifted[i][t], sum);
        }
        *out = sum;
    }
    N
}

struct ShiftedDots<'a, T> {
    sums: &'a mut [T],
    values: &'a [T],
    offsets: &'a [usize],
    weights: &'a [T],
}

impl<T: Real> WithSimd for ShiftedDots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ShiftedDots { mut sums, values, mut offsets, weights } = self;
        while !sums.is_empty() {
            let terms = match sums.len() {
                9.. => add_dots::<9, S, T>(simd, sums, values, offsets, weights),
                4..9 => add_dots::<4, S, T>(simd, sums, values, offsets, weights),
                2..4 => add_dots::<2, S, T>(simd, sums, values, offsets, weights),
                _ => add_dots::<1, S, T>(simd, sums, values, offsets, weights),
            };
            (sums, offsets) = (&mut sums[terms..], &offsets[terms..]);
        }
    }
}

/// Adds the first `N` dot products to `sums`; returns `N`.
#[inline(always)]
fn add_dots<const N: usize, S: Simd, T: Real>(
    simd: S,
    sums: &mut [T],
    values: &[T],
    offsets: &[usize],
    weights: &[T],
) -> usize {
    let shifted: [_; N] = std::array::from_fn(|i| T::vectors::<S>(&values[offsets[i]..][..weights.len()]).0);
    let mut partial = [T::splat(simd, T::zero()); N];
    for (t, weight) in T::vectors::<S>(weights).0.iter().enumerate() {
        for i in 0..N {
            partial[i] = T::mul_add(simd, *weight, shifted[i][t], partial[i]);
        }
    }
    for (sum, partial) in sums.iter_mut().zip(partial) {
        *sum += T::sum(simd, partial);
    }
    N
}
