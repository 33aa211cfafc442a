//! Depthwise convolution (one filter per channel) and its two gradients, as sums of shifted vectors (see [`super::flat`]).

use super::finish::Finish;
use super::flat::Flat;
use super::shifted::{shifted_dots, shifted_sum};
use super::vector::Real;
use crate::ops::fresh::Fresh;
use crate::ops::sizes::Sizes;
use rayon::prelude::*;

/// Channel images handed to a worker at once: one is too little work for a task.
const CHANNELS: usize = 8;

/// Pixels of images that share one pass of dot products: sums over longer vectors spend less time on their ends.
const GROUP: usize = 8192;

/// `y = finish(conv(x, w))`.
pub(super) fn forward<T: Real>(sizes: &Sizes, x: &[T], w: &[T], finish: Finish<T>) -> Vec<T> {
    let flat = Flat::new(sizes, 1);
    let offsets: Vec<usize> = (0..sizes.taps()).map(|tap| flat.offset(tap)).collect();
    let mut y = Fresh::new(sizes.batch * sizes.out_image());
    let channels = y.par_chunks_mut(sizes.out_pixels()).zip(x.par_chunks_exact(sizes.in_pixels()));
    channels.with_min_len(CHANNELS).enumerate().for_each_init(
        || (zeros(flat.channel()), zeros(flat.span())),
        |(input, output), (i, (y, x))| {
            let channel = i % sizes.c_in;
            flat.fill(0, x, input);
            shifted_sum(output, input, &offsets, &w[channel * sizes.taps()..][..sizes.taps()]);
            flat.compact(0, output, finish.bias_of(channel), y);
            finish.rectify(y);
        },
    );
    y.finish()
}

/// Gradient of `sum(gy * conv(x, w))` to `x`.
pub(super) fn input_gradient<T: Real>(sizes: &Sizes, gy: &[T], w: &[T]) -> Vec<T> {
    let flat = Flat::new(sizes, 1);
    // Where the forward pass reads at `offset + t`, its adjoint reads `gy` at `t - offset`: zeros go before the first pixel.
    let lead = flat.largest_offset();
    let planes: Vec<(Vec<usize>, Vec<usize>)> = (0..flat.planes())
        .map(|plane| flat.taps_of_plane(plane).into_iter().map(|(tap, offset)| (tap, lead - offset)).unzip())
        .collect();
    let mut gx = Fresh::new(sizes.batch * sizes.in_image());
    let channels = gx.par_chunks_mut(sizes.in_pixels()).zip(gy.par_chunks_exact(sizes.out_pixels()));
    channels.with_min_len(CHANNELS).enumerate().for_each_init(
        || (zeros(lead + flat.span()), zeros(flat.span()), Vec::new()),
        |(output, input, weights), (i, (gx, gy))| {
            let filter = &w[i % sizes.c_in * sizes.taps()..][..sizes.taps()];
            flat.spread(0, gy, &mut output[lead..]);
            for (plane, (taps, offsets)) in planes.iter().enumerate() {
                weights.clear();
                weights.extend(taps.iter().map(|tap| filter[*tap]));
                shifted_sum(input, output, offsets, weights);
                flat.empty(plane, 0, input, gx);
            }
        },
    );
    gx.finish()
}

/// Gradient of `sum(gy * conv(x, w))` to `w`; parallel over channels, so each sum has one fixed order.
pub(super) fn weight_gradient<T: Real>(sizes: &Sizes, x: &[T], gy: &[T]) -> Vec<T> {
    let images = (GROUP / sizes.in_pixels()).clamp(1, sizes.batch.max(1));
    let flat = Flat::new(sizes, images);
    let offsets: Vec<usize> = (0..sizes.taps()).map(|tap| flat.offset(tap)).collect();
    let mut gw = vec![T::zero(); sizes.weight()];
    gw.par_chunks_exact_mut(sizes.taps()).enumerate().for_each_init(
        || (zeros(flat.channel()), zeros(flat.span())),
        |(input, output), (channel, gw)| {
            for first in (0..sizes.batch).step_by(images) {
                for place in 0..images {
                    let image = first + place;
                    if image < sizes.batch {
                        let i = image * sizes.c_in + channel;
                        flat.fill(place, &x[i * sizes.in_pixels()..][..sizes.in_pixels()], input);
                        flat.spread(place, &gy[i * sizes.out_pixels()..][..sizes.out_pixels()], output);
                    } else {
                        flat.clear(place, output);
                    }
                }
                shifted_dots(gw, input, &offsets, output);
            }
        },
    );
    gw
}

fn zeros<T: Real>(len: usize) -> Vec<T> {
    vec![T::zero(); len]
}
