//! Convolution and its two gradients as matrix products, one per image and group, parallel over the batch.

use super::finish::Finish;
use super::im2col::{Place, fold_add, unfold};
use super::matrix::{Matrix, Write, multiply};
use super::parts::{PARTS, sum_of_parts};
use super::vector::Real;
use crate::ops::fresh::Fresh;
use crate::ops::sizes::Sizes;
use rayon::prelude::*;

/// `y = finish(conv(x, w))`.
pub(super) fn forward<T: Real>(sizes: &Sizes, x: &[T], w: &[T], finish: Finish<T>) -> Vec<T> {
    let mut y = Fresh::new(sizes.batch * sizes.out_image());
    let images = y.par_chunks_mut(sizes.out_image()).zip(x.par_chunks_exact(sizes.in_image()));
    images.for_each_init(
        || columns_buffer(sizes),
        |columns, (y, x)| {
            let store = match finish.bias {
                Some(bias) => {
                    y.chunks_exact_mut(sizes.out_pixels()).zip(bias).for_each(|(channel, b)| channel.fill(*b));
                    Write::Add
                }
                None => Write::Overwrite,
            };
            for (group, y) in y.chunks_exact_mut(sizes.c_out_of_group() * sizes.out_pixels()).enumerate() {
                let columns = unfolded(sizes, of_group(sizes, x, group), columns);
                multiply(y, store, weight_of_group(sizes, w, group), columns);
            }
            finish.rectify(y);
        },
    );
    y.finish()
}

/// Gradient of `sum(gy * conv(x, w))` to `x`.
pub(super) fn input_gradient<T: Real>(sizes: &Sizes, gy: &[T], w: &[T]) -> Vec<T> {
    let mut gx = Fresh::new(sizes.batch * sizes.in_image());
    let images = gx.par_chunks_mut(sizes.in_image()).zip(gy.par_chunks_exact(sizes.out_image()));
    images.for_each_init(
        || columns_buffer(sizes),
        |columns, (gx, gy)| {
            for (group, gx) in gx.chunks_exact_mut(sizes.c_in_of_group() * sizes.in_pixels()).enumerate() {
                let (w, gy) = (weight_of_group(sizes, w, group).transposed(), output_of_group(sizes, gy, group));
                if sizes.is_pointwise() {
                    multiply(gx, Write::Overwrite, w, gy);
                } else {
                    multiply(columns, Write::Overwrite, w, gy);
                    fold_add(sizes, columns, gx, Place::ALONE);
                }
            }
        },
    );
    gx.finish()
}

/// Gradient of `sum(gy * conv(x, w))` to `w`.
pub(super) fn weight_gradient<T: Real>(sizes: &Sizes, x: &[T], gy: &[T]) -> Vec<T> {
    let images_of_part = sizes.batch.div_ceil(PARTS).max(1);
    let parts = x.par_chunks(images_of_part * sizes.in_image()).zip(gy.par_chunks(images_of_part * sizes.out_image()));
    let parts: Vec<Vec<T>> = parts
        .map_init(
            || columns_buffer(sizes),
            |columns, (x, gy)| {
                let mut gw = vec![T::zero(); sizes.weight()];
                for (x, gy) in x.chunks_exact(sizes.in_image()).zip(gy.chunks_exact(sizes.out_image())) {
                    for (group, gw) in gw.chunks_exact_mut(sizes.c_out_of_group() * sizes.terms()).enumerate() {
                        let columns = unfolded(sizes, of_group(sizes, x, group), columns);
                        multiply(gw, Write::Add, output_of_group(sizes, gy, group), columns.transposed());
                    }
                }
                gw
            },
        )
        .collect();
    sum_of_parts(sizes, parts)
}

/// Room for one unfolded group of channels; a pointwise convolution needs none.
fn columns_buffer<T: Real>(sizes: &Sizes) -> Vec<T> {
    vec![T::zero(); if sizes.is_pointwise() { 0 } else { sizes.terms() * sizes.out_pixels() }]
}

/// The group's channels as the right-hand matrix, `(terms, H' * W')`.
fn unfolded<'a, T: Real>(sizes: &Sizes, x: &'a [T], columns: &'a mut [T]) -> Matrix<'a, T> {
    if sizes.is_pointwise() {
        return Matrix::new(x, sizes.terms(), sizes.out_pixels());
    }
    unfold(sizes, x, columns, Place::ALONE);
    Matrix::new(columns, sizes.terms(), sizes.out_pixels())
}

pub(super) fn of_group<'a, T>(sizes: &Sizes, x: &'a [T], group: usize) -> &'a [T] {
    let len = sizes.c_in_of_group() * sizes.in_pixels();
    &x[group * len..][..len]
}

fn output_of_group<'a, T: Real>(sizes: &Sizes, y: &'a [T], group: usize) -> Matrix<'a, T> {
    let len = sizes.c_out_of_group() * sizes.out_pixels();
    Matrix::new(&y[group * len..][..len], sizes.c_out_of_group(), sizes.out_pixels())
}

pub(super) fn weight_of_group<'a, T: Real>(sizes: &Sizes, w: &'a [T], group: usize) -> Matrix<'a, T> {
    let len = sizes.c_out_of_group() * sizes.terms();
    Matrix::new(&w[group * len..][..len], sizes.c_out_of_group(), sizes.terms())
}
