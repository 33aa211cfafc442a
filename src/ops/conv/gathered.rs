//! Convolution with many channels of few pixels: matrix products as in [`super::dense`], of several images at once.
//!
//! There the weight is far larger than an image: a product per image would spend its time on reading the weight, or on writing
//! its gradient.

use super::dense::{of_group, weight_of_group};
use super::finish::Finish;
use super::im2col::{Place, fold_add, unfold};
use super::matrix::{Matrix, Store, multiply};
use super::sizes::Sizes;
use super::vector::Real;
use rayon::prelude::*;

/// Columns that a product has, about.
const PIXELS: usize = 256;
/// Products that a batch is cut into at least, for threads to share.
const TASKS: usize = 8;
/// Input channels whose weight gradients are one product.
const CHANNELS: usize = 16;
/// Values of a group's weight from which on this is worth the copies.
const WEIGHT: usize = 9 * 128 * 128;

/// Whether this is faster than a product per image; found by measurement, see `benches/NOTES.md`.
pub(super) fn suits(sizes: &Sizes) -> bool {
    !sizes.is_pointwise() && 2 * sizes.out_pixels() <= PIXELS && sizes.weight() / sizes.groups >= WEIGHT
}

/// `y = finish(conv(x, w))`.
pub(super) fn forward<T: Real>(sizes: &Sizes, x: &[T], w: &[T], finish: Finish<T>) -> Vec<T> {
    let together = images_together(sizes);
    let mut y = vec![T::zero(); sizes.batch * sizes.out_image()];
    let ys = y.par_chunks_mut(together * sizes.out_image());
    ys.zip(x.par_chunks(together * sizes.in_image())).for_each_init(
        || (columns_buffer(sizes), outputs_buffer(sizes)),
        |(columns, outputs), (y, x)| {
            for group in 0..sizes.groups {
                unfold_all(sizes, x, group, columns);
                multiply(outputs, Store::Overwrite, weight_of_group(sizes, w, group), matrix(sizes, columns));
                for (image, y) in y.chunks_exact_mut(sizes.out_image()).enumerate() {
                    for (channel, sums) in outputs.chunks_exact(together * sizes.out_pixels()).enumerate() {
                        let channel = group * sizes.c_out_of_group() + channel;
                        let bias = finish.bias_of(channel);
                        let y = &mut y[channel * sizes.out_pixels()..][..sizes.out_pixels()];
                        y.iter_mut().zip(&sums[image * sizes.out_pixels()..]).for_each(|(y, sum)| *y = *sum + bias);
                    }
                }
            }
            finish.rectify(y);
        },
    );
    y
}

/// Gradient of `sum(gy * conv(x, w))` to `x`.
pub(super) fn input_gradient<T: Real>(sizes: &Sizes, gy: &[T], w: &[T]) -> Vec<T> {
    let together = images_together(sizes);
    let mut gx = vec![T::zero(); sizes.batch * sizes.in_image()];
    let gxs = gx.par_chunks_mut(together * sizes.in_image());
    gxs.zip(gy.par_chunks(together * sizes.out_image())).for_each_init(
        || (columns_buffer(sizes), outputs_buffer(sizes)),
        |(columns, outputs), (gx, gy)| {
            for group in 0..sizes.groups {
                gather(sizes, gy, group, outputs);
                multiply(
                    columns,
                    Store::Overwrite,
                    weight_of_group(sizes, w, group).transposed(),
                    matrix(sizes, outputs),
                );
                for (image, gx) in gx.chunks_exact_mut(sizes.in_image()).enumerate() {
                    let len = sizes.c_in_of_group() * sizes.in_pixels();
                    fold_add(sizes, columns, &mut gx[group * len..][..len], Place { image, of: together });
                }
            }
        },
    );
    gx
}

/// Gradient of `sum(gy * conv(x, w))` to `w`: of all images at once, for a few input channels after the other.
///
/// Partial sums over the images, as elsewhere, would each be as large as the weight.
pub(super) fn weight_gradient<T: Real>(sizes: &Sizes, x: &[T], gy: &[T]) -> Vec<T> {
    let (terms, channels) = (sizes.terms(), CHANNELS.min(sizes.c_in_of_group()));
    let cols = sizes.batch * sizes.out_pixels();
    let mut gw = vec![T::zero(); sizes.weight()];
    if sizes.batch == 0 {
        return gw;
    }
    let mut outputs = vec![T::zero(); sizes.c_out_of_group() * cols];
    for (group, gw) in gw.chunks_exact_mut(sizes.c_out_of_group() * terms).enumerate() {
        gather(sizes, gy, group, &mut outputs);
        let outputs = Matrix::new(&outputs, sizes.c_out_of_group(), cols);
        let first_channels: Vec<usize> = (0..sizes.c_in_of_group()).step_by(channels).collect();
        let blocks: Vec<Vec<T>> = first_channels
            .par_iter()
            .map_init(
                || vec![T::zero(); channels * sizes.taps() * cols],
                |columns, first| {
                    let channels = channels.min(sizes.c_in_of_group() - first);
                    let columns = &mut columns[..channels * sizes.taps() * cols];
                    for (image, x) in x.chunks_exact(sizes.in_image()).enumerate() {
                        let x = &of_group(sizes, x, group)[first * sizes.in_pixels()..][..channels * sizes.in_pixels()];
                        unfold(sizes, x, columns, Place { image, of: sizes.batch });
                    }
                    let columns = Matrix::new(columns, channels * sizes.taps(), cols);
                    let mut block = vec![T::zero(); sizes.c_out_of_group() * channels * sizes.taps()];
                    multiply(&mut block, Store::Overwrite, outputs, columns.transposed());
                    block
                },
            )
            .collect();
        gw.par_chunks_exact_mut(terms).enumerate().for_each(|(row, gw)| {
            for (gw, block) in gw.chunks_mut(channels * sizes.taps()).zip(&blocks) {
                gw.copy_from_slice(&block[row * gw.len()..][..gw.len()]);
            }
        });
    }
    gw
}

/// Images that share a product; by the sizes alone, not the number of threads, and so is every result.
fn images_together(sizes: &Sizes) -> usize {
    (PIXELS / sizes.out_pixels()).clamp(1, sizes.batch.div_ceil(TASKS).max(1))
}

fn columns_buffer<T: Real>(sizes: &Sizes) -> Vec<T> {
    vec![T::zero(); sizes.terms() * images_together(sizes) * sizes.out_pixels()]
}

fn outputs_buffer<T: Real>(sizes: &Sizes) -> Vec<T> {
    vec![T::zero(); sizes.c_out_of_group() * images_together(sizes) * sizes.out_pixels()]
}

/// A buffer as a matrix whose rows are as long as the images together.
fn matrix<'a, T: Real>(sizes: &Sizes, buffer: &'a [T]) -> Matrix<'a, T> {
    let cols = images_together(sizes) * sizes.out_pixels();
    Matrix::new(buffer, buffer.len() / cols, cols)
}

/// The group's channels of the images in `x`, side by side. Where there are fewer images than places, the rest keeps what it has.
fn unfold_all<T: Real>(sizes: &Sizes, x: &[T], group: usize, columns: &mut [T]) {
    let of = images_together(sizes);
    for (image, x) in x.chunks_exact(sizes.in_image()).enumerate() {
        unfold(sizes, of_group(sizes, x, group), columns, Place { image, of });
    }
}

/// The group's channels of the outputs in `gy`, side by side; zeros where there are fewer images than places.
fn gather<T: Real>(sizes: &Sizes, gy: &[T], group: usize, outputs: &mut [T]) {
    let pixels = sizes.out_pixels();
    let row_len = outputs.len() / sizes.c_out_of_group();
    for (channel, row) in outputs.chunks_exact_mut(row_len).enumerate() {
        let channel = group * sizes.c_out_of_group() + channel;
        let mut images = gy.chunks_exact(sizes.out_image());
        for place in row.chunks_exact_mut(pixels) {
            match images.next() {
                Some(gy) => place.copy_from_slice(&gy[channel * pixels..][..pixels]),
                None => place.fill(T::zero()),
            }
        }
    }
}
