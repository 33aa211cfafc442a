//! The inverse cosine transform of libjpeg's `jidctint.c` (its `JDCT_ISLOW`), with the arithmetic of libjpeg-turbo's vector
//! instructions, which clip to 16 bits where the C code wraps: Pillow is built with those.
//!
//! Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT algorithms with 11 multiplications" (ICASSP 1989), in fixed
//! point with 13 fractional bits; 2 of them are kept between columns and rows.

use super::library::Block;

/// Eight columns, or eight rows, at a time.
type Lanes = [i32; 8];

const FRACTION: u32 = 13;
const BETWEEN: u32 = 2;

/// Samples of `blocks`, whose levels lie side by side: eight rows of `8 * blocks.len()` levels.
#[inline(always)]
pub(super) fn samples(blocks: &[Block], steps: &[u16; 64], levels: &mut [u8]) {
    let stride = 8 * blocks.len();
    for (x, block) in blocks.iter().enumerate() {
        let block = inverse(block, steps);
        for (y, row) in block.iter().enumerate() {
            levels[y * stride + 8 * x..][..8].copy_from_slice(row);
        }
    }
}

#[inline(always)]
fn inverse(block: &Block, steps: &[u16; 64]) -> [[u8; 8]; 8] {
    let mut others = 0;
    for coefficient in &block[1..] {
        others |= coefficient;
    }
    if others == 0 {
        let level = i32::from(block[0].wrapping_mul(steps[0] as i16));
        return [[clipped((level + 4) >> 3); 8]; 8];
    }
    let mut rows = [[0; 8]; 8];
    for (row, (block, steps)) in rows.iter_mut().zip(block.chunks_exact(8).zip(steps.chunks_exact(8))) {
        for ((value, coefficient), step) in row.iter_mut().zip(block).zip(steps) {
            *value = i32::from(coefficient.wrapping_mul(*step as i16));
        }
    }
    let columns = one_dimension::<{ FRACTION - BETWEEN }>(&rows);
    let rows = one_dimension::<{ FRACTION + BETWEEN + 3 }>(&transposed(&columns));
    let mut levels = [[0; 8]; 8];
    for (y, row) in levels.iter_mut().enumerate() {
        for (x, level) in row.iter_mut().enumerate() {
            *level = clipped(rows[x][y]);
        }
    }
    levels
}

#[inline(always)]
fn transposed(lanes: &[Lanes; 8]) -> [Lanes; 8] {
    let mut transposed = [[0; 8]; 8];
    for (y, row) in transposed.iter_mut().enumerate() {
        for (x, value) in row.iter_mut().enumerate() {
            *value = lanes[x][y];
        }
    }
    transposed
}

#[inline(always)]
fn clipped(level: i32) -> u8 {
    (level + 128).max(0).min(255) as u8
}

/// The transform of eight values in each lane, without the last `FRACTION` bits, clipped to 16 bits.
#[inline(always)]
fn one_dimension<const FRACTION: u32>(x: &[Lanes; 8]) -> [Lanes; 8] {
    let mut y = [[0; 8]; 8];
    for lane in 0..8 {
        let [x0, x1, x2, x3] = [x[0][lane], x[1][lane], x[2][lane], x[3][lane]];
        let [x4, x5, x6, x7] = [x[4][lane], x[5][lane], x[6][lane], x[7][lane]];
        // Sums of cosines times sqrt(2).
        let even_2 = weighted(x2, 4433, x6, 4433 - 15137);
        let even_3 = weighted(x2, 4433 + 6270, x6, 4433);
        let even_0 = wrapped(x0.wrapping_add(x4)) << self::FRACTION;
        let even_1 = wrapped(x0.wrapping_sub(x4)) << self::FRACTION;
        let (even_0, even_3) = (even_0.wrapping_add(even_3), even_0.wrapping_sub(even_3));
        let (even_1, even_2) = (even_1.wrapping_add(even_2), even_1.wrapping_sub(even_2));
        let (sum_73, sum_51) = (wrapped(x7.wrapping_add(x3)), wrapped(x5.wrapping_add(x1)));
        let shared_73 = weighted(sum_73, 9633 - 16069, sum_51, 9633);
        let shared_51 = weighted(sum_73, 9633, sum_51, 9633 - 3196);
        let odd_0 = weighted(x1, 12299 - 7373, x7, -7373).wrapping_add(shared_51);
        let odd_1 = weighted(x3, 25172 - 20995, x5, -20995).wrapping_add(shared_73);
        let odd_2 = weighted(x5, 16819 - 20995, x3, -20995).wrapping_add(shared_51);
        let odd_3 = weighted(x7, 2446 - 7373, x1, -7373).wrapping_add(shared_73);
        y[0][lane] = rounded::<FRACTION>(even_0.wrapping_add(odd_0));
        y[1][lane] = rounded::<FRACTION>(even_1.wrapping_add(odd_1));
        y[2][lane] = rounded::<FRACTION>(even_2.wrapping_add(odd_2));
        y[3][lane] = rounded::<FRACTION>(even_3.wrapping_add(odd_3));
        y[4][lane] = rounded::<FRACTION>(even_3.wrapping_sub(odd_3));
        y[5][lane] = rounded::<FRACTION>(even_2.wrapping_sub(odd_2));
        y[6][lane] = rounded::<FRACTION>(even_1.wrapping_sub(odd_1));
        y[7][lane] = rounded::<FRACTION>(even_0.wrapping_sub(odd_0));
    }
    y
}

#[inline(always)]
fn weighted(a: i32, of_a: i32, b: i32, of_b: i32) -> i32 {
    a.wrapping_mul(of_a).wrapping_add(b.wrapping_mul(of_b))
}

/// Sums of 16-bit values are kept in 16 bits.
#[inline(always)]
fn wrapped(sum: i32) -> i32 {
    i32::from(sum as i16)
}

#[inline(always)]
fn rounded<const FRACTION: u32>(value: i32) -> i32 {
    (value.wrapping_add(1 << (FRACTION - 1)) >> FRACTION).max(-32768).min(32767)
}
