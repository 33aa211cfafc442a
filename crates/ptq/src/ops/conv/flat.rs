//! A layout of padded images in which every kernel position is one constant offset.
//!
//! An input channel is copied into a buffer with room for its zero padding, rows `pitch` apart, split into one plane for
//! each position modulo the stride. Output pixel `(y, x)` has the flat index `y * pitch + x`, and the value that kernel
//! position `tap` multiplies into it lies at `offset(tap) + y * pitch + x`. A convolution thereby becomes sums of long
//! contiguous vectors, whatever stride and padding: no edges, no short rows. The price: `pitch - W'` values at the
//! end of each output row are computed for nothing.
//!
//! Rows share their padding: behind the last column of a row come the zeros before the first column of the next.

use super::shifted::BLOCK;
use super::vector::Real;
use crate::ops::sizes::Sizes;
use crate::ops::window::{put_every, take_every};
use std::ops::Range;

/// Where the pixels of a channel go. Buffers start as zeros; [`Flat::fill`] and [`Flat::spread`] write to the same places
/// every time and leave the zeros between them alone, so that a buffer can be used again without clearing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flat {
    sizes: Sizes,
    /// Images side by side in one buffer: each plane holds them one after the other.
    images: usize,
    /// Distance between rows, of planes and of the flat output.
    pitch: usize,
    /// Values of one image in a plane.
    image: usize,
    /// Planes down and across: positions modulo the stride that some kernel position reads.
    phases_y: usize,
    phases_x: usize,
}

impl Flat {
    pub fn new(sizes: &Sizes, images: usize) -> Flat {
        let Sizes { h, w, k_h, k_w, out_h, out_w, stride, top, left, .. } = *sizes;
        // What an image takes in a plane, down or across. Behind it come the zeros, `padding / stride` or more, before the
        // next row or image: what is read of the padding behind it can lie there.
        let extent = |input: usize, kernel: usize, output: usize, padding: usize| {
            let data = (input - 1 + padding) / stride + 1;
            let read = output + (kernel - 1) / stride;
            output.max(data).max(read.saturating_sub(padding / stride))
        };
        let pitch = extent(w, k_w, out_w, left);
        Flat {
            sizes: *sizes,
            images,
            pitch,
            image: extent(h, k_h, out_h, top) * pitch,
            phases_y: stride.min(k_h),
            phases_x: stride.min(k_w),
        }
    }

    pub fn images(&self) -> usize {
        self.images
    }

    /// Values of the flat output of one channel, all images; a multiple of [`BLOCK`].
    pub fn span(&self) -> usize {
        (self.images * self.image).next_multiple_of(BLOCK)
    }

    /// Values of one plane: as many as the output has can be read from any kernel position's offset on.
    pub fn plane(&self) -> usize {
        self.span() + self.largest_offset()
    }

    /// Planes of one channel.
    pub fn planes(&self) -> usize {
        self.phases_y * self.phases_x
    }

    /// Values in the buffer of one channel: its planes one after the other.
    pub fn channel(&self) -> usize {
        self.planes() * self.plane()
    }

    /// Where, in a channel's buffer, kernel position `tap` finds the value for output pixel 0.
    pub fn offset(&self, tap: usize) -> usize {
        let Sizes { k_w, stride, .. } = self.sizes;
        let (y, x) = (tap / k_w, tap % k_w);
        let plane = y % stride * self.phases_x + x % stride;
        plane * self.plane() + y / stride * self.pitch + x / stride
    }

    /// The kernel positions that read plane `number`, each with its offset from the start of the plane.
    pub fn taps_of_plane(&self, number: usize) -> Vec<(usize, usize)> {
        let start = number * self.plane();
        let taps = (0..self.sizes.taps()).filter(|tap| self.offset(*tap) / self.plane() == number);
        taps.map(|tap| (tap, self.offset(tap) - start)).collect()
    }

    /// The largest offset from the start of a plane, that of the last kernel position.
    pub fn largest_offset(&self) -> usize {
        (self.sizes.k_h - 1) / self.sizes.stride * self.pitch + (self.sizes.k_w - 1) / self.sizes.stride
    }

    /// Copies a channel of image number `image` into the channel's buffer.
    pub fn fill<T: Real>(&self, image: usize, channel: &[T], buffer: &mut [T]) {
        for (number, plane) in buffer.chunks_exact_mut(self.plane()).enumerate() {
            for (y, first, part) in self.rows_of_plane(number, image) {
                let row = &channel[y * self.sizes.w..][..self.sizes.w];
                take_every(self.sizes.stride, &row[first..], &mut plane[part]);
            }
        }
    }

    /// The adjoint of [`Flat::fill`] for one plane: copies a channel of image number `image` back from it. Pixels that no
    /// plane holds are left: no output depends on them.
    pub fn empty<T: Real>(&self, number: usize, image: usize, plane: &[T], channel: &mut [T]) {
        for (y, first, part) in self.rows_of_plane(number, image) {
            let row = &mut channel[y * self.sizes.w..][..self.sizes.w];
            put_every(self.sizes.stride, &plane[part], &mut row[first..]);
        }
    }

    /// The input rows that plane `number` holds parts of: the row, the first of its pixels there, and where in the plane.
    fn rows_of_plane(&self, number: usize, image: usize) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
        let Sizes { h, w, stride, top, left, .. } = self.sizes;
        let (phase_y, phase_x) = (number / self.phases_x, number % self.phases_x);
        // The first row and column at or after the padding that belong to this plane.
        let row = top.saturating_sub(phase_y).div_ceil(stride);
        let column = left.saturating_sub(phase_x).div_ceil(stride);
        let (first_y, first_x) = (row * stride + phase_y - top, column * stride + phase_x - left);
        let len = w.saturating_sub(first_x).div_ceil(stride);
        let start = image * self.image + row * self.pitch + column;
        let (pitch, end) = (self.pitch, if len == 0 { 0 } else { h });
        (first_y..end).step_by(stride).enumerate().map(move |(i, y)| {
            let start = start + i * pitch;
            (y, first_x, start..start + len)
        })
    }

    /// Copies an output channel of image number `image` into the flat layout.
    pub fn spread<T: Real>(&self, image: usize, channel: &[T], flat: &mut [T]) {
        let out_w = self.sizes.out_w;
        let rows = channel.chunks_exact(out_w).zip(flat[image * self.image..].chunks_mut(self.pitch));
        rows.for_each(|(row, flat)| flat[..out_w].copy_from_slice(row));
    }

    /// Makes the flat output of image number `image` zeros.
    pub fn clear<T: Real>(&self, image: usize, flat: &mut [T]) {
        flat[image * self.image..][..self.image].fill(T::zero());
    }

    /// Copies an output channel of image number `image` from the flat layout, adding `bias`.
    pub fn compact<T: Real>(&self, image: usize, flat: &[T], bias: T, channel: &mut [T]) {
        let rows = channel.chunks_exact_mut(self.sizes.out_w).zip(flat[image * self.image..].chunks(self.pitch));
        rows.for_each(|(row, flat)| row.iter_mut().zip(flat).for_each(|(to, from)| *to = *from + bias));
    }
}
