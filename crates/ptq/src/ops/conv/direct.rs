//! Convolution with few channels in a group: channels times pixels in registers, straight from the padded input.
//!
//! With few channels the matrices of [`super::dense`] are so small that unfolding and packing them costs as much as
//! multiplying them. In the flat layout (see [`super::flat`]) no unfolding is needed: row `(channel, tap)` of the
//! unfolded matrix is the input itself, from an offset on. The gradient to the input is the same product with other
//! weights and offsets; the gradient to the weight is a dot product of long vectors for each weight.

use super::finish::Finish;
use super::flat::Flat;
use super::parts::sum_of_parts;
use super::tile::{CHANNELS, Panels, add_dots, multiply_panel};
use super::vector::Real;
use crate::ops::fresh::Fresh;
use crate::ops::sizes::Sizes;
use rayon::prelude::*;

/// Pixels of the images that are convolved together, if there are as many: small images alone leave tiles half empty.
const PIXELS_OF_PRODUCT: usize = 768;

/// The same for dot products: vectors long enough to outweigh the sum over the last register, short enough to stay in cache.
const PIXELS_OF_DOT: usize = 1536;

/// Groups that a batch is cut into to be convolved in parallel, at least, and partial sums of the weight gradient, at most.
/// They depend on the sizes alone, not on the number of threads, and so does every result.
const GROUPS: usize = 8;

/// Whether this is faster than matrix products; found by measurement, see `benches/NOTES.md`.
pub(super) fn suits(sizes: &Sizes) -> bool {
    let few = 3..=64;
    sizes.taps() > 1 && few.contains(&sizes.c_in_of_group()) && few.contains(&sizes.c_out_of_group())
}

/// `y = finish(conv(x, w))`.
pub(super) fn forward<T: Real>(sizes: &Sizes, x: &[T], w: &[T], finish: Finish<T>) -> Vec<T> {
    let flat = Flat::new(sizes, images_together(sizes, PIXELS_OF_PRODUCT, sizes.batch.div_ceil(GROUPS)));
    let rows = unfolded_rows(sizes, &flat);
    let filters: Vec<Panels<T>> = w
        .chunks_exact(sizes.c_out_of_group() * sizes.terms())
        .map(|w| Panels::new(sizes.c_out_of_group(), sizes.terms(), |output, row| w[output * sizes.terms() + row]))
        .collect();
    let mut y = Fresh::new(sizes.batch * sizes.out_image());
    let ys = y.par_chunks_mut(flat.images() * sizes.out_image());
    ys.zip(x.par_chunks(flat.images() * sizes.in_image())).for_each_init(
        || (zeros(sizes.c_in * flat.channel()), zeros(CHANNELS * flat.span())),
        |(input, output), (y, x)| {
            fill(sizes, &flat, x, input);
            for (group, panels) in filters.iter().enumerate() {
                let input = &input[group * sizes.c_in_of_group() * flat.channel()..];
                for (first, panel) in panels.iter() {
                    multiply_panel(output, flat.span(), panel, &rows, input);
                    let channels = panel_channels(sizes.c_out_of_group(), group, first);
                    for (channel, output) in channels.zip(output.chunks_exact(flat.span())) {
                        let bias = finish.bias_of(channel);
                        for (image, y) in y.chunks_exact_mut(sizes.out_image()).enumerate() {
                            let y = &mut y[channel * sizes.out_pixels()..][..sizes.out_pixels()];
                            flat.compact(image, output, bias, y);
                        }
                    }
                }
            }
            finish.rectify(y);
        },
    );
    y.finish()
}

/// Gradient of `sum(gy * conv(x, w))` to `x`.
pub(super) fn input_gradient<T: Real>(sizes: &Sizes, gy: &[T], w: &[T]) -> Vec<T> {
    let flat = Flat::new(sizes, images_together(sizes, PIXELS_OF_PRODUCT, sizes.batch.div_ceil(GROUPS)));
    // Where the forward pass reads at `offset + t`, its adjoint reads `gy` at `t - offset`: zeros go before the first pixel.
    let lead = flat.largest_offset();
    let output_channel = lead + flat.span();
    let planes: Vec<(Vec<usize>, Vec<Panels<T>>)> = (0..flat.planes())
        .map(|plane| {
            let taps = flat.taps_of_plane(plane);
            let of_channel =
                |channel: usize| taps.iter().map(move |(_, offset)| channel * output_channel + lead - offset);
            let rows = (0..sizes.c_out_of_group()).flat_map(of_channel).collect();
            let of_group = |w: &[T]| {
                Panels::new(sizes.c_in_of_group(), sizes.c_out_of_group() * taps.len(), |input, row| {
                    let (output, tap) = (row / taps.len(), taps[row % taps.len()].0);
                    w[output * sizes.terms() + input * sizes.taps() + tap]
                })
            };
            (rows, w.chunks_exact(sizes.c_out_of_group() * sizes.terms()).map(of_group).collect())
        })
        .collect();
    let mut gx = Fresh::new(sizes.batch * sizes.in_image());
    let gxs = gx.par_chunks_mut(flat.images() * sizes.in_image());
    gxs.zip(gy.par_chunks(flat.images() * sizes.out_image())).for_each_init(
        || (zeros(sizes.c_out * output_channel), zeros(CHANNELS * flat.span())),
        |(output, input), (gx, gy)| {
            for (image, gy) in gy.chunks_exact(sizes.out_image()).enumerate() {
                let channels = gy.chunks_exact(sizes.out_pixels()).zip(output.chunks_exact_mut(output_channel));
                channels.for_each(|(gy, output)| flat.spread(image, gy, &mut output[lead..]));
            }
            for (plane, (rows, filters)) in planes.iter().enumerate() {
                for (group, panels) in filters.iter().enumerate() {
                    let output = &output[group * sizes.c_out_of_group() * output_channel..];
                    for (first, panel) in panels.iter() {
                        multiply_panel(input, flat.span(), panel, rows, output);
                        let channels = panel_channels(sizes.c_in_of_group(), group, first);
                        for (channel, input) in channels.zip(input.chunks_exact(flat.span())) {
                            for (image, gx) in gx.chunks_exact_mut(sizes.in_image()).enumerate() {
                                let gx = &mut gx[channel * sizes.in_pixels()..][..sizes.in_pixels()];
                                flat.empty(plane, image, input, gx);
                            }
                        }
                    }
                }
            }
        },
    );
    gx.finish()
}

/// Gradient of `sum(gy * conv(x, w))` to `w`.
pub(super) fn weight_gradient<T: Real>(sizes: &Sizes, x: &[T], gy: &[T]) -> Vec<T> {
    let parts = (sizes.batch * sizes.out_pixels() / PIXELS_OF_PRODUCT).clamp(1, GROUPS);
    let images_of_part = sizes.batch.div_ceil(parts).max(1);
    let flat = Flat::new(sizes, images_together(sizes, PIXELS_OF_DOT, images_of_part));
    let rows = unfolded_rows(sizes, &flat);
    // Room to read whole panels of the last group.
    let output_rows = (sizes.groups - 1) * sizes.c_out_of_group() + sizes.c_out_of_group().next_multiple_of(CHANNELS);
    let parts = x.par_chunks(images_of_part * sizes.in_image()).zip(gy.par_chunks(images_of_part * sizes.out_image()));
    let of_part = |(x, gy): (&[T], &[T])| {
        let (mut input, mut output) = (zeros(sizes.c_in * flat.channel()), zeros(output_rows * flat.span()));
        let mut gw = vec![T::zero(); sizes.weight()];
        let together = x.chunks(flat.images() * sizes.in_image()).zip(gy.chunks(flat.images() * sizes.out_image()));
        for (x, gy) in together {
            fill(sizes, &flat, x, &mut input);
            for (channel, output) in output.chunks_exact_mut(flat.span()).take(sizes.c_out).enumerate() {
                let mut images = gy.chunks_exact(sizes.out_image());
                for image in 0..flat.images() {
                    match images.next() {
                        Some(gy) => {
                            flat.spread(image, &gy[channel * sizes.out_pixels()..][..sizes.out_pixels()], output)
                        }
                        None => flat.clear(image, output),
                    }
                }
            }
            gw.par_chunks_exact_mut(sizes.c_out_of_group() * sizes.terms()).enumerate().for_each(|(group, gw)| {
                let input = &input[group * sizes.c_in_of_group() * flat.channel()..];
                gw.par_chunks_mut(CHANNELS * sizes.terms()).enumerate().for_each(|(panel, gw)| {
                    let first = panel_channels(sizes.c_out_of_group(), group, panel * CHANNELS).start;
                    add_dots(gw, flat.span(), &output[first * flat.span()..], &rows, input);
                });
            });
        }
        gw
    };
    let parts: Vec<Vec<T>> = parts.map(of_part).collect();
    sum_of_parts(sizes, parts)
}

/// Images that share the planes of one buffer: enough to have so many pixels, but no more than `limit`.
fn images_together(sizes: &Sizes, pixels: usize, limit: usize) -> usize {
    pixels.div_ceil(sizes.out_pixels()).min(limit).max(1)
}

/// Where each row of a group's unfolded matrix, `(channel, tap)`, begins in the group's buffers.
fn unfolded_rows(sizes: &Sizes, flat: &Flat) -> Vec<usize> {
    let of_channel = |channel: usize| (0..sizes.taps()).map(move |tap| channel * flat.channel() + flat.offset(tap));
    (0..sizes.c_in_of_group()).flat_map(of_channel).collect()
}

/// The channels of a panel that begins with channel `first` of the group.
fn panel_channels(channels_of_group: usize, group: usize, first: usize) -> std::ops::Range<usize> {
    let start = group * channels_of_group;
    start + first..start + (first + CHANNELS).min(channels_of_group)
}

fn fill<T: Real>(sizes: &Sizes, flat: &Flat, x: &[T], input: &mut [T]) {
    for (image, x) in x.chunks_exact(sizes.in_image()).enumerate() {
        let channels = x.chunks_exact(sizes.in_pixels()).zip(input.chunks_exact_mut(flat.channel()));
        channels.for_each(|(x, input)| flat.fill(image, x, input));
    }
}

fn zeros<T: Real>(len: usize) -> Vec<T> {
    vec![T::zero(); len]
}
