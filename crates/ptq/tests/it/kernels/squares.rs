//! Sums of squares.

use super::host::{Grid, kernels};
use super::{BLOCK_ELEMENTS, COUNTS, assert_equal, eighths, flat, tensor};
use ptq::ops::squares::sums_of_squares;

/// `MOST` of the source.
const MOST: usize = 64;

/// `Vectors` of the source.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Vectors {
    x: [*const f32; MOST],
    end: [u32; MOST],
    len: [u32; MOST],
    count: u32,
}

kernels! { Squares of "squares.cu":
    fn squares_of_blocks(all: Vectors, partial: *mut f64);
    fn squares_of_vectors(all: Vectors, partial: *const f64, result: *mut f32);
}

#[test]
fn squares_of_vectors_of_all_lengths() {
    let many: Vec<usize> = (0..MOST).map(|i| i * 137 % 9000).collect();
    for kernels in Squares::compiled() {
        for lens in [&COUNTS[..], &COUNTS[8..], &many] {
            let vectors: Vec<Vec<f32>> = lens.iter().enumerate().map(|(i, &n)| eighths(n, i as u64)).collect();
            let mut all =
                Vectors { x: [std::ptr::null(); MOST], end: [0; MOST], len: [0; MOST], count: lens.len() as u32 };
            let mut blocks = 0;
            for (i, vector) in vectors.iter().enumerate() {
                blocks += vector.len().div_ceil(BLOCK_ELEMENTS);
                (all.x[i], all.end[i], all.len[i]) = (vector.as_ptr(), blocks as u32, vector.len() as u32);
            }
            let (mut partial, mut result) = (vec![0.0; blocks], vec![0.0; lens.len()]);
            kernels.squares_of_blocks(Grid::blocks(blocks), all, partial.as_mut_ptr());
            kernels.squares_of_vectors(Grid::blocks(lens.len()), all, partial.as_ptr(), result.as_mut_ptr());
            let tensors: Vec<_> = vectors.iter().map(|vector| tensor(vector, &[vector.len()])).collect();
            assert_equal(&format!("{lens:?}"), &result, &flat(&sums_of_squares(&tensors).unwrap()));
        }
    }
}
