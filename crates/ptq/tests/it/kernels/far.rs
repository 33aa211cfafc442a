//! Elements beyond the 2^32nd, of tensors that no test has memory for: a pointer to their element 0 lies so far before the few
//! elements there are that the last block meets them.

use super::batch_norm::{Batch, Norm, PART};
use super::depthwise::Depthwise;
use super::host::{Grid, THREADS, kernels};
use super::im2col::Im2col;
use super::layout::Layout;
use super::mix::{KeyedMask, Mix};
use super::pool::{Pooling, Window};
use super::recon_error::Error;
use super::relu::Relu;
use super::rounding::Rounding;
use super::sizes::Sizes;
use super::{
    BLOCK_ELEMENTS, Sums, assert_close, assert_equal, eighths, noise, written, written_doubles, written_words,
};
use ptq::ops::fake_quant::Mask;
use ptq::rng;

kernels! { Index of "../../../tests/it/kernels/index.cu":
    fn divided(a: *const u64, b: *const u32, quotients: *mut u64, rests: *mut u32, n: u64);
}

/// The first element of the last block.
const START: u64 = 5 << 33;
/// Elements of that block.
const LEN: usize = 200;
const N: u64 = START + LEN as u64;

fn last_block() -> Grid {
    Grid::last((START / THREADS) as u32)
}

/// Where element 0 is if `values` are those from `start` on.
fn from(values: &[f32], start: u64) -> *const f32 {
    values.as_ptr().wrapping_sub(start as usize)
}

/// What `kernel` writes to `len` elements from `start` on.
fn written_from(start: u64, len: usize, kernel: impl FnOnce(*mut f32)) -> Vec<f32> {
    written(len, |out| kernel(out.wrapping_sub(start as usize)))
}

#[test]
fn quotients_and_rests_of_any_size() {
    let numerators = [0, 1, 6, 7, 8, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, 7 << 40, u64::MAX - 1, u64::MAX];
    let denominators = [1, 2, 3, 7, 49, 65_536, 1 << 31, u32::MAX];
    let (a, b): (Vec<u64>, Vec<u32>) = numerators.iter().flat_map(|a| denominators.map(|b| (*a, b))).unzip();
    for index in Index::compiled() {
        let (mut quotients, mut rests) = (vec![0; a.len()], vec![0; a.len()]);
        let (to, rest_to) = (quotients.as_mut_ptr(), rests.as_mut_ptr());
        index.divided(Grid::each(a.len()), a.as_ptr(), b.as_ptr(), to, rest_to, a.len() as u64);
        for (i, (&a, &b)) in a.iter().zip(&b).enumerate() {
            assert_eq!((quotients[i], u64::from(rests[i])), (a / u64::from(b), a % u64::from(b)), "{a} by {b}");
        }
    }
}

#[test]
fn elements() {
    let x = noise(LEN, 1);
    for relu in Relu::compiled() {
        let y = written_from(START, LEN, |y| relu.clipped_relu(last_block(), from(&x, START), y, 0.5, N));
        assert_equal("relu", &y, &x.iter().map(|x| x.clamp(0.0, 0.5)).collect::<Vec<f32>>());

        // Images of 3 channels and 7 pixels.
        let bias = [1.0, 2.0, 3.0];
        let y = written_from(START, LEN, |y| {
            relu.add_bias(last_block(), from(&x, START), bias.as_ptr(), y, 7, 3, 0, 0.0, N);
        });
        let expected = x.iter().zip(START..).map(|(x, i)| x + bias[(i / 7 % 3) as usize]);
        assert_equal("bias", &y, &expected.collect::<Vec<f32>>());
    }
    for sums in Sums::compiled() {
        let sum = written_from(START, LEN, |sum| sums.add_images(last_block(), from(&x, START), sum, 1, N));
        assert_equal("images", &sum, &x);
    }
}

#[test]
fn sums_of_channels() {
    let (channel, pixels) = (4_000_000_000u32, 50);
    let x = eighths(pixels, 1);
    for relu in Relu::compiled() {
        let sums = written_from(channel.into(), 1, |sums| {
            let x = from(&x, u64::from(channel) * pixels as u64);
            relu.channel_sums(Grid::last(channel), x, sums, pixels as u32, u32::MAX, 1);
        });
        assert_equal("sum", &sums, &[x.iter().sum()]);
    }
}

#[test]
fn rows_of_mini_batches_and_masks_whose_index_starts_again() {
    let key = [1, 2];
    let mask = KeyedMask::of(&Mask::Keyed { key, threshold: u32::MAX / 2 });
    // All of the block is in one row of the batch, which is a late one of the cache.
    let (width, rows) = (1u32 << 31, [7001]);
    let (batch_row, place) = (START / u64::from(width), START % u64::from(width));
    let start = u64::from(rows[0]) * u64::from(width) + place;
    let (selected, others) = (noise(LEN, 1), noise(LEN, 2));
    for kernels in Mix::compiled() {
        let mixed = written_from(START, LEN, |mixed| {
            let rows = rows.as_ptr().wrapping_sub(batch_row as usize);
            kernels.mix_rows(last_block(), from(&selected, start), from(&others, start), rows, mixed, width, mask, N);
        });
        let expected = (0..LEN).map(|i| match rng::element_bits(key, (START + i as u64) as u32) < u32::MAX / 2 {
            true => selected[i],
            false => others[i],
        });
        assert_equal("rows", &mixed, &expected.collect::<Vec<f32>>());
    }
}

#[test]
fn partial_sums() {
    let block = (START / BLOCK_ELEMENTS as u64) as u32;
    let (y, target) = (eighths(LEN, 1), eighths(LEN, 2));
    for kernels in Error::compiled() {
        let mut sum = [f64::NAN];
        let partial = sum.as_mut_ptr().wrapping_sub(block as usize);
        kernels.recon_error(
            Grid::last(block),
            from(&y, START),
            from(&target, START),
            std::ptr::null(),
            partial,
            2.0,
            N,
        );
        let expected = y.iter().zip(&target).map(|(y, t)| f64::from((y - t) * (y - t))).sum::<f64>();
        assert_eq!(sum[0], expected);
    }
}

#[test]
fn channels_of_a_weight() {
    let (channel, per_channel) = (3_000_000_000u32, 77);
    let start = u64::from(channel) * per_channel as u64;
    // Levels from 0 to 3, so that none is clipped, around a zero point of 1.
    let (alpha, floor, g) = (noise(per_channel, 1), vec![0.0; per_channel], eighths(per_channel, 2));
    let (scale, zero) = ([0.5], [1.0]);
    let sigmoid = |alpha: f32| f64::from(1.0 / (1.0 + (-alpha).exp()));
    for kernels in Rounding::compiled() {
        let mut g_scale = Vec::new();
        let g_alpha = written_from(start, per_channel, |g_alpha| {
            g_scale = written_from(channel.into(), 1, |g_scale| {
                let [alpha, floor, g] = [&alpha, &floor, &g].map(|values| from(values, start));
                let [scale, zero] = [&scale, &zero].map(|values| from(values, channel.into()));
                let grid = Grid::last(channel);
                kernels.soft_weight_gradient(
                    grid,
                    alpha,
                    scale,
                    floor,
                    zero,
                    g,
                    g_alpha,
                    g_scale,
                    3.0,
                    per_channel as u32,
                    0.0,
                    0.0,
                );
            });
        });
        let pairs = || alpha.iter().zip(&g).map(|(alpha, g)| (sigmoid(*alpha), f64::from(*g)));
        let expected: Vec<f32> = pairs().map(|(s, g)| (0.5 * g * 1.2 * s * (1.0 - s)) as f32).collect();
        assert_close("gradient", &g_alpha, &expected, 1e-6);
        let expected: f64 = pairs().map(|(s, g)| g * (1.2 * s - 0.1)).sum();
        assert_close("gradient of the scale", &g_scale, &[expected as f32], 1e-4);
    }
}

#[test]
fn planes() {
    // 64 planes of 4 pixels are a block of threads.
    let plane = START / 4;
    let window = Window { h: 4, w: 4, out_h: 2, out_w: 2, kernel: 2, stride: 2, padding: 0 };
    // Windows of 16 pixels whose last one is the largest, of which there are 2^32 too.
    let x: Vec<f32> = (0..LEN * 4).map(|i| i as f32).collect();
    let expected: Vec<u32> = (0..LEN).map(|i| [5, 7, 13, 15][i % 4]).collect();
    for kernels in Pooling::compiled() {
        let winners = written_words(LEN, |winners| {
            let winners = winners.wrapping_sub(START as usize);
            kernels.max_pool_winners(last_block(), from(&x, plane * 16), winners, window, N);
        });
        assert_eq!(winners, expected);
        let y = written_from(START, LEN, |y| {
            let winners = winners.as_ptr().wrapping_sub(START as usize);
            kernels.max_pool_pick(last_block(), from(&x, plane * 16), winners, y, window, N);
        });
        let largest = expected.iter().enumerate().map(|(i, winner)| x[i / 4 * 16 + *winner as usize]);
        assert_equal("largest", &y, &largest.collect::<Vec<f32>>());
        let first = START / 16;
        let gx = written_from(START, LEN, |gx| {
            let winners = winners.as_ptr().wrapping_sub((first * 4) as usize);
            kernels.max_pool_put(last_block(), from(&y, first * 4), winners, gx, window, N);
        });
        let put = (0..LEN).map(|i| if [5, 7, 13, 15].contains(&(i % 16)) { x[i] } else { 0.0 });
        assert_equal("back", &gx, &put.collect::<Vec<f32>>());
    }
}

#[test]
fn values_that_change_places() {
    // Four planes of four pixels on one side, one of sixteen on the other: from where each of these comes.
    let from_where = [0, 4, 1, 5, 8, 12, 9, 13, 2, 6, 3, 7, 10, 14, 11, 15];
    let x = noise(LEN + 8, 1);
    for layout in Layout::compiled() {
        let y = written_from(START, LEN + 8, |y| {
            layout.pixels_from_channels(last_block(), from(&x, START), y, 2, 2, START + LEN as u64 + 8);
        });
        let expected = (0..LEN + 8).map(|i| x[i / 16 * 16 + from_where[i % 16]]);
        assert_equal("pixels", &y, &expected.collect::<Vec<f32>>());
        let back = written_from(START, LEN + 8, |back| {
            layout.channels_from_pixels(last_block(), from(&y, START), back, 2, 2, START + LEN as u64 + 8);
        });
        assert_equal("channels", &back, &x);

        // Images of three values beside images of five.
        let (image, [a, b]) = (START / 8, [3, 5].map(|len| noise(LEN / 8 * len, len as u64)));
        let y = written_from(START, LEN, |y| {
            layout.joined(last_block(), from(&a, image * 3), from(&b, image * 5), y, 3, 5, N);
        });
        let expected: Vec<f32> = a.chunks(3).zip(b.chunks(5)).flat_map(|(a, b)| [a, b].concat()).collect();
        assert_equal("joined", &y, &expected);
    }
}

#[test]
fn values_of_a_batch() {
    // Images of 3 channels and 7 pixels.
    let batch = Batch { images: 1, channels: 3, pixels: 7 };
    let (x, g) = (noise(LEN, 1), noise(LEN, 2));
    let (mean, inverse_std, weight, other) = ([0.1, 0.2, 0.3], [1.1, 1.2, 1.3], [2.1, 2.2, 2.3], [0.4, 0.5, 0.6]);
    let (m, s, w, o) = (mean.as_ptr(), inverse_std.as_ptr(), weight.as_ptr(), other.as_ptr());
    let normalised = |i: usize| {
        let c = ((START + i as u64) / 7 % 3) as usize;
        (c, (x[i] - mean[c]) * inverse_std[c])
    };
    for norm in Norm::compiled() {
        let y = written_from(START, LEN, |y| norm.batch_norm(last_block(), from(&x, START), m, s, w, o, y, batch, N));
        let expected = (0..LEN).map(normalised).map(|(c, z)| z * weight[c] + other[c]);
        assert_equal("value", &y, &expected.collect::<Vec<f32>>());
        let g_x = written_from(START, LEN, |g_x| {
            let (x, g) = (from(&x, START), from(&g, START));
            norm.batch_input_gradient(last_block(), x, g, m, s, w, o, o, g_x, batch, N);
        });
        let expected = (0..LEN).map(|i| {
            let (c, z) = normalised(i);
            weight[c] * inverse_std[c] * (g[i] - other[c] / 7.0 - z * (other[c] / 7.0))
        });
        assert_close("gradient", &g_x, &expected.collect::<Vec<f32>>(), 2e-6);
    }
}

#[test]
fn parts_of_a_batch() {
    // The last part of one channel of many images, and the only one of a late channel.
    let long = Batch { images: 11, channels: 1, pixels: 0xf000_0003 };
    let count = u64::from(long.images) * u64::from(long.pixels);
    let (part, rest) = ((count / PART as u64) as u32, (count % PART as u64) as usize);
    let wide = Batch { images: 1, channels: u32::MAX, pixels: 50 };
    let channel = 4_000_000_000;
    let cases = [(long, part, 0, count - rest as u64, rest), (wide, channel, channel, u64::from(channel) * 50, 50)];
    for (norm, (batch, block, channel, start, len)) in Norm::compiled().flat_map(|norm| cases.map(|case| (norm, case)))
    {
        let (x, g, mean, inverse_std) = (eighths(len, 1), eighths(len, 2), [0.5], [2.0]);
        let number = |kernel: &mut dyn FnMut(*mut f64)| {
            written_doubles(1, |number| kernel(number.wrapping_sub(block as usize)))[0]
        };
        let exact = |values: &mut dyn Iterator<Item = f32>| values.map(f64::from).sum::<f64>();
        let grid = || Grid::last(block);

        let mut square = 0.0;
        let sum = number(&mut |sum| {
            square = number(&mut |square| norm.batch_sums(grid(), from(&x, start), sum, square, batch));
        });
        assert_eq!([sum, square], [exact(&mut x.iter().copied()), exact(&mut x.iter().map(|x| x * x))]);
        let mut product = 0.0;
        let sum = number(&mut |sum| {
            product = number(&mut |product| {
                let [m, s] = [&mean, &inverse_std].map(|value| from(value, channel.into()));
                norm.batch_gradient_sums(grid(), from(&x, start), from(&g, start), m, s, sum, product, batch);
            });
        });
        let products = &mut x.iter().zip(&g).map(|(x, g)| g * ((x - 0.5) * 2.0));
        assert_eq!([sum, product], [exact(&mut g.iter().copied()), exact(products)]);
    }
}

#[test]
fn planes_under_windows() {
    // A window that takes every second pixel of every second row: 4 of the 16 pixels of a plane, times its channel's weight.
    let sizes = Sizes { channels: 3, h: 4, w: 4, out_h: 2, out_w: 2, k_h: 1, k_w: 1, stride: 2, top: 0, left: 0 };
    let weight = [1.0, 2.0, 3.0];
    let of_plane = |plane: u64| weight[(plane % 3) as usize];
    let x = noise(LEN * 4, 1);
    for kernels in Depthwise::compiled() {
        let first = START / 4;
        let y = written_from(START, LEN, |y| {
            kernels.depthwise_forward(last_block(), from(&x, first * 16), weight.as_ptr(), y, sizes, N);
        });
        let expected = (0..LEN).map(|i| of_plane(first + i as u64 / 4) * x[i / 4 * 16 + [0, 2, 8, 10][i % 4]]);
        assert_equal("forward", &y, &expected.collect::<Vec<f32>>());
        let first = START / 16;
        let gx = written_from(START, LEN, |gx| {
            kernels.depthwise_input_gradient(last_block(), from(&y, first * 4), weight.as_ptr(), gx, sizes, N);
        });
        let expected = (0..LEN).map(|i| match [0, 2, 8, 10].iter().position(|pixel| *pixel == i % 16) {
            Some(pixel) => of_plane(first + i as u64 / 16) * y[i / 16 * 4 + pixel],
            None => 0.0,
        });
        assert_equal("gradient of the input", &gx, &expected.collect::<Vec<f32>>());
        // Windows beside one another, each of which takes its four taps from the four pixels below.
        let (plane, sizes) = (4_000_000_000u32, Sizes { k_h: 2, k_w: 2, ..sizes });
        let (x, gy) = (eighths(16, 1), eighths(4, 2));
        let of_images = written_from(u64::from(plane) * 4, 4, |of_images| {
            let (x, gy) = (from(&x, u64::from(plane) * 16), from(&gy, u64::from(plane) * 4));
            kernels.depthwise_weight_gradient(Grid::last(plane), x, gy, of_images, sizes);
        });
        let tap = |first: usize| gy.iter().zip([0, 2, 8, 10]).map(|(g, corner)| g * x[first + corner]).sum();
        assert_equal("gradient of the weight", &of_images, &[0, 1, 4, 5].map(tap));
    }
    for kernels in Im2col::compiled() {
        let first = START / 4;
        let columns = written_from(START, LEN, |columns| {
            kernels.im2col(last_block(), from(&x, first * 16), columns, sizes, N);
        });
        let expected = (0..LEN).map(|i| x[i / 4 * 16 + [0, 2, 8, 10][i % 4]]);
        assert_equal("columns", &columns, &expected.collect::<Vec<f32>>());
        let first = START / 16;
        let back =
            written_from(START, LEN, |back| kernels.col2im(last_block(), from(&columns, first * 4), back, sizes, N));
        let expected = (0..LEN).map(|i| match [0, 2, 8, 10].iter().position(|pixel| *pixel == i % 16) {
            Some(pixel) => columns[i / 16 * 4 + pixel],
            None => 0.0,
        });
        assert_equal("columns, back", &back, &expected.collect::<Vec<f32>>());
    }
}
