//! Mini-batches, and the masks by which they are mixed.

use super::host::{Grid, kernels};
use super::{assert_equal, flat, noise, tensor, written};
use ptq::ops::fake_quant::Mask;
use ptq::ops::mix::mix_rows;
use ptq::rng;

kernels! { Mix of "mix.cu":
    fn mix_rows(
        selected: *const f32, others: *const f32, rows: *const u32, mixed: *mut f32, width: u32, mask: KeyedMask, n: u64,
    );
}

/// `Mask` of `random.h`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct KeyedMask {
    all: u32,
    key: [u32; 2],
    threshold: u32,
}

impl KeyedMask {
    pub fn of(mask: &Mask) -> Self {
        match *mask {
            Mask::Keyed { key, threshold } => Self { all: 0, key, threshold },
            _ => Self { all: 1, key: [0; 2], threshold: 0 },
        }
    }
}

/// All elements, none, half, a few, and up to exactly the bits of one of the first elements, which is not selected then.
pub fn masks() -> Vec<Mask> {
    let key = [0x1234_5678, 0x9abc_def0];
    let thresholds = [0, u32::MAX / 2, u32::MAX / 50, u32::MAX, rng::element_bits(key, 3)];
    std::iter::once(Mask::All).chain(thresholds.map(|threshold| Mask::Keyed { key, threshold })).collect()
}

#[test]
fn rows_of_mini_batches() {
    for kernels in Mix::compiled() {
        for (rows, width) in [(vec![], 5), (vec![2], 1), (vec![6, 0, 6, 3], 77), (vec![1, 5, 4], 1000)] {
            let shape = [7, width];
            let (selected, others) = (noise(7 * width, 1), noise(7 * width, 2));
            let n = rows.len() * width;
            for mask in masks() {
                let expected = mix_rows(&tensor(&selected, &shape), &tensor(&others, &shape), &rows, &mask).unwrap();
                let (selected, others, rows) = (selected.as_ptr(), others.as_ptr(), rows.as_ptr());
                let mixed = written(n, |mixed| {
                    let mask = KeyedMask::of(&mask);
                    kernels.mix_rows(Grid::each(n), selected, others, rows, mixed, width as u32, mask, n as u64);
                });
                assert_equal(&format!("rows of {width}, {mask:?}"), &mixed, &flat(&expected));
            }
        }
    }
}

#[test]
fn masks_are_the_bits_of_the_elements() {
    for kernels in Mix::compiled() {
        let n = 5000;
        let (ones, zeros, rows) = (vec![1.0; n], vec![0.0; n], [0]);
        for mask in masks() {
            let Mask::Keyed { key, threshold } = mask else { continue };
            let selects = (0..n as u32).map(|i| f32::from(rng::element_bits(key, i) < threshold));
            let mask = KeyedMask::of(&mask);
            let selected = written(n, |mixed| {
                let rows = rows.as_ptr();
                kernels.mix_rows(Grid::each(n), ones.as_ptr(), zeros.as_ptr(), rows, mixed, n as u32, mask, n as u64);
            });
            assert_equal(&format!("{threshold}"), &selected, &selects.collect::<Vec<f32>>());
        }
    }
}
