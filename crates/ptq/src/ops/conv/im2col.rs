//! Unfolding an image into the matrix that turns a convolution into a matrix product, and its adjoint.
//!
//! The unfolded matrix has one row per (channel, kernel row, kernel column) and one column per output pixel.

use super::vector::Real;
use crate::ops::sizes::Sizes;
use crate::ops::window::take_every;
use std::ops::Range;

/// One of the images that stand side by side in a matrix.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub image: usize,
    pub of: usize,
}

impl Place {
    /// The only one.
    pub const ALONE: Place = Place { image: 0, of: 1 };
}

/// Copies the channels in `image` to its columns of `columns`; padding becomes zeros.
///
/// `image` is `(channels, H, W)` and `columns` `(channels * K_h * K_w, place.of * H' * W')`.
pub(super) fn unfold<T: Real>(sizes: &Sizes, image: &[T], columns: &mut [T], place: Place) {
    let mut rows = columns
        .chunks_exact_mut(place.of * sizes.out_pixels())
        .map(|row| &mut row[place.image * sizes.out_pixels()..][..sizes.out_pixels()]);
    for channel in image.chunks_exact(sizes.in_pixels()) {
        for tap_y in 0..sizes.k_h {
            for tap_x in 0..sizes.k_w {
                let Some(row) = rows.next() else { return };
                unfold_tap(sizes, channel, tap_y, tap_x, row);
            }
        }
    }
}

fn unfold_tap<T: Real>(sizes: &Sizes, channel: &[T], tap_y: usize, tap_x: usize, row: &mut [T]) {
    if let Some((first, to)) = moved(sizes, tap_y, tap_x) {
        row[..to.start].fill(T::zero());
        row[to.end..].fill(T::zero());
        row[to.clone()].copy_from_slice(&channel[first..][..to.len()]);
        clear_padding(sizes, tap_x, row);
        return;
    }
    let (ys, xs) = (sizes.rows_inside(tap_y), sizes.columns_inside(tap_x));
    for (y, line) in row.chunks_exact_mut(sizes.out_w).enumerate() {
        if !ys.contains(&y) || xs.is_empty() {
            line.fill(T::zero());
            continue;
        }
        let first = (y * sizes.stride + tap_y - sizes.top) * sizes.w + xs.start * sizes.stride + tap_x - sizes.left;
        line[..xs.start].fill(T::zero());
        line[xs.end..].fill(T::zero());
        take_every(sizes.stride, &channel[first..], &mut line[xs.clone()]);
    }
}

/// Where rows of the image keep their length, row `(tap_y, tap_x)` of the matrix is the channel moved by some pixels: the first
/// pixel of the channel that is copied, and where its pixels go. What wraps around from one row to the next is on the padding
/// ([`clear_padding`]).
fn moved(sizes: &Sizes, tap_y: usize, tap_x: usize) -> Option<(usize, Range<usize>)> {
    if sizes.stride != 1 || sizes.out_w != sizes.w {
        return None;
    }
    let ys = sizes.rows_inside(tap_y);
    // Pixel `i` of the row is pixel `i + ahead - behind` of the channel.
    let (ahead, behind) = (tap_y * sizes.w + tap_x, sizes.top * sizes.w + sizes.left);
    let start = (ys.start * sizes.w).max(behind.saturating_sub(ahead));
    let end = (ys.end * sizes.w).min((sizes.in_pixels() + behind).saturating_sub(ahead));
    Some(if start < end { (start + ahead - behind, start..end) } else { (0, 0..0) })
}

/// Zeros for the pixels of an unfolded row whose window has column `tap_x` on the padding.
fn clear_padding<T: Real>(sizes: &Sizes, tap_x: usize, row: &mut [T]) {
    let xs = sizes.columns_inside(tap_x);
    if xs.len() < sizes.out_w {
        for line in row.chunks_exact_mut(sizes.out_w) {
            line[..xs.start].fill(T::zero());
            line[xs.end..].fill(T::zero());
        }
    }
}

/// Adds the image's columns of `columns` back to where [`unfold`] would have copied them from: its adjoint.
///
/// Leaves zeros in `columns` where [`unfold`] would have.
pub(super) fn fold_add<T: Real>(sizes: &Sizes, columns: &mut [T], image: &mut [T], place: Place) {
    let mut rows = columns
        .chunks_exact_mut(place.of * sizes.out_pixels())
        .map(|row| &mut row[place.image * sizes.out_pixels()..][..sizes.out_pixels()]);
    for channel in image.chunks_exact_mut(sizes.in_pixels()) {
        for tap_y in 0..sizes.k_h {
            for tap_x in 0..sizes.k_w {
                let Some(row) = rows.next() else { return };
                fold_tap(sizes, row, tap_y, tap_x, channel);
            }
        }
    }
}

fn fold_tap<T: Real>(sizes: &Sizes, row: &mut [T], tap_y: usize, tap_x: usize, channel: &mut [T]) {
    if let Some((first, from)) = moved(sizes, tap_y, tap_x) {
        clear_padding(sizes, tap_x, row);
        channel[first..].iter_mut().zip(&row[from]).for_each(|(to, from)| *to += *from);
        return;
    }
    let (ys, xs) = (sizes.rows_inside(tap_y), sizes.columns_inside(tap_x));
    if xs.is_empty() {
        return;
    }
    for y in ys {
        let first = (y * sizes.stride + tap_y - sizes.top) * sizes.w + xs.start * sizes.stride + tap_x - sizes.left;
        let line = &row[y * sizes.out_w..][xs.clone()];
        if sizes.stride == 1 {
            channel[first..first + line.len()].iter_mut().zip(line).for_each(|(to, from)| *to += *from);
        } else {
            channel[first..].iter_mut().step_by(sizes.stride).zip(line).for_each(|(to, from)| *to += *from);
        }
    }
}
