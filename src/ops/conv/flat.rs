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
use super::sizes::Sizes;
use super::strided::{put_every, take_every};
use super::vector::Real;
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
        let Sizes { h, w, k_h, k_w, out_h, out_w, stride, padding, .. } = *sizes;
        let data_rows = (h - 1 + padding) / stride + 1;
        let data_columns = (w - 1 + padding) / stride + 1;
        let read_columns = out_w + (k_w - 1) / stride;
        // Every plane begins its rows with at least `padding / stride` zeros, which also end the row before.
        let pitch = out_w.max(data_columns).max(read_columns - (padding / stride).min(read_columns));
        let rows = data_rows.max(out_h + (k_h - 1) / stride);
        Flat {
            sizes: *sizes,
            images,
            pitch,
            image: (rows * pitch + (k_w - 1) / stride).next_multiple_of(BLOCK),
            phases_y: stride.min(k_h),
            phases_x: stride.min(k_w),
        }
    }

    /// Planes of one channel.
    pub fn planes(&self) -> usize {
        self.phases_y * self.phases_x
    }

    /// Values of one plane.
    pub fn plane(&self) -> usize {
        self.images * self.image
    }

    /// Values in the buffer of one channel: its planes one after the other, and room to read a plane's length from any
    /// kernel position's offset.
    pub fn channel(&self) -> usize {
        self.planes() * self.plane() + self.largest_offset()
    }

    /// Values of the flat output of one channel, all images: from `offset` on, as many can be read.
    pub fn span(&self) -> usize {
        self.plane()
    }

    /// Where, in a channel's buffer, kernel position `tap` finds the value for output pixel 0.
    pub fn offset(&self, tap: usize) -> usize {
        let Sizes { k_w, stride, .. } = self.sizes;
        let (y, x) = (tap / k_w, tap % k_w);
        let plane = y % stride * self.phases_x + x % stride;
        plane * self.plane() + y / stride * self.pitch + x / stride
    }

    /// The largest offset from the start of a plane, that of the last kernel position.
    pub fn largest_offset(&self) -> usize {
        (self.sizes.k_h - 1) / self.sizes.stride * self.pitch + (self.sizes.k_w - 1) / self.sizes.stride
    }

    /// Copies a channel of image number `image` into the channel's buffer.
    pub fn fill<T: Real>(&self, image: usize, channel: &[T], buffer: &mut [T]) {
        for (y, row) in channel.chunks_exact(self.sizes.w).enumerate() {
            self.for_each_part(image, y, |first, part| {
                take_every(self.sizes.stride, &row[first..], &mut buffer[part]);
            });
        }
    }

    /// The adjoint of [`Flat::fill`]: copies a channel of one image back. Pixels that no output depends on are left.
    pub fn empty<T: Real>(&self, image: usize, buffer: &[T], channel: &mut [T]) {
        for (y, row) in channel.chunks_exact_mut(self.sizes.w).enumerate() {
            self.for_each_part(image, y, |first, part| {
                put_every(self.sizes.stride, &buffer[part], &mut row[first..]);
            });
        }
    }

    /// Input row `y` goes to one plane per column modulo the stride: calls `visit` with the first pixel of each part, and
    /// where the part goes in the channel's buffer.
    fn for_each_part(&self, image: usize, y: usize, mut visit: impl FnMut(usize, Range<usize>)) {
        let Sizes { w, stride, padding, .. } = self.sizes;
        let row = y + padding;
        if row % stride >= self.phases_y {
            return;
        }
        for phase in 0..self.phases_x {
            // The first column at or after the padding that belongs to this phase.
            let column = padding.saturating_sub(phase).div_ceil(stride);
            let first = column * stride + phase - padding;
            if first < w {
                let plane = row % stride * self.phases_x + phase;
                let start = plane * self.plane() + image * self.image + row / stride * self.pitch + column;
                visit(first, start..start + (w - first).div_ceil(stride));
            }
        }
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
