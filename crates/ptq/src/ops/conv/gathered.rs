//! Convolution with many channels of few pixels: matrix products as in [`super::dense`], of several images at once.
//!
//! There the weight is far larger than an image: a product per image would spend its time on reading the weight, or on writing
//! its gradient.

use super::dense::{of_group, weight_of_group};
use super::finish::Finish;
use super::im2col::{Place, fold_add, unfold};
use super::matrix::{Matrix, Write, multiply};
use super::vector::Real;
use crate::ops::fresh::Fresh;
use crate::ops::sizes::Sizes;
use rayon::prelude::*;
use std::ops::Range;

/// Columns that a product has, about.
const PIXELS: usize = 256;
/// Products that a batch is cut into at least, for threads to share.
const TASKS: usize = 8;
/// Input channels whose gradients, or those of their weights, are one product.
const CHANNELS: usize = 16;
/// Values of a group's weight from which on this is worth the copies.
const WEIGHT: usize = 9 * 128 * 128;

/// Whether this is faster than a product per image; found by measurement, see `benches/NOTES.md`.
pub(super) fn suits(sizes: &Sizes) -> bool {
    !sizes.is_pointwise() && 2 * sizes.out_pixels() <= PIXELS && sizes.weight() / sizes.groups >= WEIGHT
}

/// `y = finish(conv(x, w))`.
pub(super) fn forward<T: Real>(sizes: &Sizes, x: &[T], w: &[T], finish: Finish<T>) -> Vec<T> {
    let (together, c_out) = (images_together(sizes), sizes.c_out_of_group());
    let mut y = Fresh::new(sizes.batch * sizes.out_image());
    let ys = y.par_chunks_mut(together * sizes.out_image());
    ys.zip(x.par_chunks(together * sizes.in_image())).for_each_init(
        || (Vec::new(), Vec::new()),
        |(columns, outputs), (y, x)| {
            let cols = x.len() / sizes.in_image() * sizes.out_pixels();
            columns.resize(sizes.terms() * cols, T::zero());
            outputs.resize(c_out * cols, T::zero());
            for group in 0..sizes.groups {
                unfold_all(sizes, x, group, 0..sizes.c_in_of_group(), columns);
                let columns = Matrix::new(columns, sizes.terms(), cols);
                multiply(outputs, Write::Overwrite, weight_of_group(sizes, w, group), columns);
                for (image, y) in y.chunks_exact_mut(sizes.out_image()).enumerate() {
                    for (channel, sums) in outputs.chunks_exact(cols).enumerate() {
                        let channel = group * c_out + channel;
                        let bias = finish.bias_of(channel);
                        let y = &mut y[channel * sizes.out_pixels()..][..sizes.out_pixels()];
                        y.iter_mut().zip(&sums[image * sizes.out_pixels()..]).for_each(|(y, sum)| *y = *sum + bias);
                    }
                }
            }
            finish.rectify(y);
        },
    );
    y.finish()
}

/// Gradient of `sum(gy * conv(x, w))` to `x`: of all images at once, for a few input channels after the other.
pub(super) fn input_gradient<T: Real>(sizes: &Sizes, gy: &[T], w: &[T]) -> Vec<T> {
    let cols = sizes.batch * sizes.out_pixels();
    let mut gx = vec![T::zero(); sizes.batch * sizes.in_image()];
    let mut outputs = vec![T::zero(); sizes.c_out_of_group() * cols];
    for group in 0..sizes.groups {
        gather(sizes, gy, group, &mut outputs);
        let (outputs, w) = (Matrix::new(&outputs, sizes.c_out_of_group(), cols), weight_of_group(sizes, w, group));
        let blocks: Vec<Vec<T>> = channel_blocks(sizes)
            .into_par_iter()
            .map_init(Vec::new, |columns, channels| {
                let terms = channels.start * sizes.taps()..channels.end * sizes.taps();
                columns.resize(terms.len() * cols, T::zero());
                multiply(columns, Write::Overwrite, w.columns(terms).transposed(), outputs);
                let mut block = vec![T::zero(); sizes.batch * channels.len() * sizes.in_pixels()];
                for (image, gx) in block.chunks_exact_mut(channels.len() * sizes.in_pixels()).enumerate() {
                    fold_add(sizes, columns, gx, Place { image, of: sizes.batch });
                }
                block
            })
            .collect();
        gx.par_chunks_exact_mut(sizes.in_image()).enumerate().for_each(|(image, gx)| {
            let len = sizes.c_in_of_group() * sizes.in_pixels();
            copy_parts(&blocks, image, sizes.batch, &mut gx[group * len..][..len]);
        });
    }
    gx
}

/// Gradient of `sum(gy * conv(x, w))` to `w`: of all images at once, for a few input channels after the other.
///
/// Partial sums over the images, as elsewhere, would each be as large as the weight.
pub(super) fn weight_gradient<T: Real>(sizes: &Sizes, x: &[T], gy: &[T]) -> Vec<T> {
    let (terms, c_out) = (sizes.terms(), sizes.c_out_of_group());
    let cols = sizes.batch * sizes.out_pixels();
    let mut gw = vec![T::zero(); sizes.weight()];
    let mut outputs = vec![T::zero(); c_out * cols];
    for (group, gw) in gw.chunks_exact_mut(c_out * terms).enumerate() {
        gather(sizes, gy, group, &mut outputs);
        let outputs = Matrix::new(&outputs, c_out, cols);
        let blocks: Vec<Vec<T>> = channel_blocks(sizes)
            .into_par_iter()
            .map_init(Vec::new, |columns, channels| {
                let terms = channels.len() * sizes.taps();
                columns.resize(terms * cols, T::zero());
                unfold_all(sizes, x, group, channels, columns);
                let mut block = vec![T::zero(); c_out * terms];
                multiply(&mut block, Write::Overwrite, outputs, Matrix::new(columns, terms, cols).transposed());
                block
            })
            .collect();
        gw.par_chunks_exact_mut(terms).enumerate().for_each(|(row, gw)| copy_parts(&blocks, row, c_out, gw));
    }
    gw
}

/// Images that share a product. The sizes alone decide it, whatever the number of threads, so that no result depends on that number.
fn images_together(sizes: &Sizes) -> usize {
    (PIXELS / sizes.out_pixels()).clamp(1, sizes.batch.div_ceil(TASKS).max(1))
}

/// A group's input channels in blocks, each of which is one product. The sizes alone decide these, too.
fn channel_blocks(sizes: &Sizes) -> Vec<Range<usize>> {
    let channels = sizes.c_in_of_group();
    (0..channels).step_by(CHANNELS).map(|first| first..channels.min(first + CHANNELS)).collect()
}

/// Puts part `index` of every block, each cut into `parts`, side by side.
fn copy_parts<T: Real>(blocks: &[Vec<T>], index: usize, parts: usize, to: &mut [T]) {
    let mut rest = to;
    for block in blocks {
        let len = block.len() / parts;
        let (part, next) = rest.split_at_mut(len);
        part.copy_from_slice(&block[index * len..][..len]);
        rest = next;
    }
}

/// Some of the group's channels of the images in `x`, side by side.
fn unfold_all<T: Real>(sizes: &Sizes, x: &[T], group: usize, channels: Range<usize>, columns: &mut [T]) {
    let of = x.len() / sizes.in_image();
    let pixels = channels.start * sizes.in_pixels()..channels.end * sizes.in_pixels();
    for (image, x) in x.chunks_exact(sizes.in_image()).enumerate() {
        unfold(sizes, &of_group(sizes, x, group)[pixels.clone()], columns, Place { image, of });
    }
}

/// The group's channels of the outputs in `gy`, those of all images side by side.
fn gather<T: Real>(sizes: &Sizes, gy: &[T], group: usize, outputs: &mut [T]) {
    let pixels = sizes.out_pixels();
    outputs.par_chunks_mut((sizes.batch * pixels).max(1)).enumerate().for_each(|(channel, row)| {
        let channel = group * sizes.c_out_of_group() + channel;
        for (row, gy) in row.chunks_exact_mut(pixels).zip(gy.chunks_exact(sizes.out_image())) {
            row.copy_from_slice(&gy[channel * pixels..][..pixels]);
        }
    });
}
