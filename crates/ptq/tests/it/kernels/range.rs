//! What a search of ranges asks of many values.

use super::host::{Grid, kernels};
use super::{BLOCK_ELEMENTS, COUNTS, assert_equal, noise, with_edges, written, written_doubles};
use ptq::quant::range_search::Range;
use ptq::quant::range_search::values::Values;

kernels! { Search of "range.cu":
    fn extremes_of_blocks(x: *const f32, found: *mut f32, n: u64);
    fn histogram(x: *const f32, counts: *mut u32, min: f64, width: f64, bins: u32, n: u64);
    fn range_errors(
        x: *const f32, scale: *const f32, zero_point: *const f32, partial: *mut f64, highest: f32, exponent: f32,
        candidates: u32, n: u64,
    );
    fn add_blocks(partial: *const f64, errors: *mut f64, blocks: u64, candidates: u32);
}

/// Candidates of a block of threads.
const GROUP: usize = 16;

#[test]
fn extremes_of_any_number_of_values() {
    for kernels in Search::compiled() {
        for n in COUNTS {
            for strange in [None, Some(f32::NAN), Some(f32::INFINITY), Some(f32::NEG_INFINITY)] {
                let mut x = noise(n, 1);
                if let (Some(strange), Some(last)) = (strange, x.last_mut()) {
                    *last = strange;
                }
                let blocks = n.div_ceil(BLOCK_ELEMENTS);
                let found = written(3 * blocks, |found| {
                    kernels.extremes_of_blocks(Grid::blocks(blocks), x.as_ptr(), found, n as u64);
                });
                let blocks: Vec<_> = x.chunks(BLOCK_ELEMENTS).map(|block| block.extremes().unwrap()).collect();
                let expected: Vec<f32> =
                    blocks.iter().flat_map(|block| [block.min, block.max, f32::from(block.is_finite)]).collect();
                assert_equal(&format!("{n} values, {strange:?}"), &found, &expected);
            }
        }
    }
}

#[test]
fn histograms_are_those_of_the_cpu() {
    for kernels in Search::compiled() {
        for n in COUNTS.into_iter().filter(|n| *n > 0) {
            for bins in [1, 7, 4096] {
                // On both ends, and many equal ones.
                let x = with_edges(noise(n, 1), &[-1.0, 1.0, 0.0, 0.0, 0.0]);
                let (min, width) = (-1.0, 2.0 / bins as f64);
                let mut counts = vec![0; bins];
                kernels.histogram(Grid::each(n), x.as_ptr(), counts.as_mut_ptr(), min, width, bins as u32, n as u64);
                assert_eq!(counts, x.histogram(min, width, bins).unwrap(), "{n} values in {bins} bins");
            }
        }
    }
}

#[test]
fn errors_of_candidates_are_those_of_the_cpu_bit_for_bit() {
    for kernels in Search::compiled() {
        for (n, candidates) in COUNTS.into_iter().flat_map(|n| [1, GROUP, GROUP + 1, 100].map(|c| (n, c))) {
            // Halves of steps, far outside of the levels, tiny, and no numbers.
            let edges = [0.05, -0.05, 0.15, 40.0, -40.0, 1e-30, -1e-38, 0.0, f32::INFINITY];
            let edges = if candidates == GROUP { &edges[..] } else { &edges[..8] };
            let x = with_edges(noise(n, 1), edges);
            let ranges: Vec<Range> = (0..candidates)
                .map(|i| Range { scale: 0.1 * (i + 1) as f32 / 7.0, zero_point: (i % 4) as f32 })
                .collect();
            let scales: Vec<f32> = ranges.iter().map(|range| range.scale).collect();
            let zero_points: Vec<f32> = ranges.iter().map(|range| range.zero_point).collect();
            let blocks = n.div_ceil(BLOCK_ELEMENTS);
            let partial = written_doubles(blocks * candidates, |partial| {
                let grid = Grid::blocks(blocks * candidates.div_ceil(GROUP));
                let (scales, zero_points) = (scales.as_ptr(), zero_points.as_ptr());
                kernels.range_errors(
                    grid,
                    x.as_ptr(),
                    scales,
                    zero_points,
                    partial,
                    3.0,
                    2.4,
                    candidates as u32,
                    n as u64,
                );
            });
            let errors = written_doubles(candidates, |errors| {
                kernels.add_blocks(Grid::each(candidates), partial.as_ptr(), errors, blocks as u64, candidates as u32);
            });
            let bits = |errors: &[f64]| errors.iter().map(|error| error.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&errors), bits(&x.errors(&ranges, 3.0).unwrap()), "{n} values, {candidates} candidates");
        }
    }
}
