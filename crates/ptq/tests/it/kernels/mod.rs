//! The kernels for GPUs, compiled for the host, beside the operations on the CPU.
//!
//! Most values are multiples of 1/8 of few bits: whatever the order of additions, their sums are exact, so that results must be
//! equal even where the two sides add up differently. NaN has tests of its own.

mod adam;
mod batch_norm;
mod depthwise;
mod fake_quant;
mod far;
mod host;
mod im2col;
mod layout;
mod mix;
mod pool;
mod range;
mod recon_error;
mod relu;
mod rounding;
mod sizes;
mod squares;
mod virtual_step;

use candle_core::{DType, Device, Tensor, Var};
use host::Grid;
use ptq::rng::Stream;

host::kernels! { Sums of "sums.cu":
    fn add_up(partial: *const f64, result: *mut f32, factor: f64, blocks: u32);
    fn add_images(x: *const f32, sums: *mut f32, images: u32, n: u64);
}

/// Elements that a block sums up.
const BLOCK_ELEMENTS: usize = 4096;

/// Numbers of elements: none, one, a block of threads or of a sum with and without a rest, several of them.
const COUNTS: [usize; 9] = [0, 1, 255, 256, 257, 1000, BLOCK_ELEMENTS, BLOCK_ELEMENTS + 1, 3 * BLOCK_ELEMENTS + 77];

/// Planes of one pixel, one row or column, even and odd sizes.
const PLANES: [(usize, usize); 8] = [(1, 1), (1, 6), (5, 1), (2, 2), (4, 7), (9, 9), (8, 8), (23, 31)];

/// Windows of size `kernel` over `size` pixels, if one fits.
fn windows(size: usize, kernel: usize, stride: usize, padding: usize) -> Option<usize> {
    Some((size + 2 * padding).checked_sub(kernel)? / stride + 1)
}

/// Multiples of 1/8 in [-2, 2), among them many halves and equal values.
fn eighths(len: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed);
    (0..len).map(|i| stream.below(i as u64, 32) as f32 / 8.0 - 2.0).collect()
}

/// Any values in [-1, 1).
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed);
    (0..len).map(|i| (2.0 * stream.unit(i as u64) - 1.0) as f32).collect()
}

/// `values`, the first of which are `edges`.
fn with_edges(mut values: Vec<f32>, edges: &[f32]) -> Vec<f32> {
    values.iter_mut().zip(edges).for_each(|(value, edge)| *value = *edge);
    values
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// Its elements, rounded if they are f64.
fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

/// `f` of the tensors, and the gradients of `sum(upstream * f)`.
fn outcome<const N: usize>(
    inputs: [&Tensor; N],
    upstream: &[f32],
    f: impl Fn([&Tensor; N]) -> Tensor,
) -> (Vec<f32>, [Vec<f32>; N]) {
    let vars = inputs.map(|input| Var::from_tensor(input).unwrap());
    let y = f(std::array::from_fn(|i| vars[i].as_tensor()));
    let upstream = tensor(upstream, y.dims()).to_dtype(y.dtype()).unwrap();
    let store = (&y * upstream).unwrap().sum_all().unwrap().backward().unwrap();
    (flat(&y), std::array::from_fn(|i| flat(store.get(&vars[i]).unwrap())))
}

/// What `kernel` writes to `len` elements: to each of them, and not beside them.
fn written(len: usize, kernel: impl FnOnce(*mut f32)) -> Vec<f32> {
    written_words(len, |out| kernel(out.cast())).into_iter().map(f32::from_bits).collect()
}

/// The same for integers.
fn written_words(len: usize, kernel: impl FnOnce(*mut u32)) -> Vec<u32> {
    written_over(0x7fc0_dead, len, kernel)
}

/// The same for f64.
fn written_doubles(len: usize, kernel: impl FnOnce(*mut f64)) -> Vec<f64> {
    written_over(0x7ff8_0000_0000_dead, len, |out: *mut u64| kernel(out.cast()))
        .into_iter()
        .map(f64::from_bits)
        .collect()
}

/// The same for any bits; `untouched` are those of a NaN that no kernel makes.
fn written_over<W: Copy + PartialEq>(untouched: W, len: usize, kernel: impl FnOnce(*mut W)) -> Vec<W> {
    const ROOM: usize = 600;
    let mut words = vec![untouched; len + 2 * ROOM];
    kernel(words[ROOM..].as_mut_ptr());
    let (before, rest) = words.split_at(ROOM);
    let (result, after) = rest.split_at(len);
    assert!(before.iter().chain(after).all(|word| *word == untouched), "written beside the {len} elements");
    assert!(result.iter().all(|word| *word != untouched), "an element of {len} that was not written");
    result.to_vec()
}

/// `factor` times the sum of what `partial`, which gets the grid and room for a number a block, leaves for `n` elements.
fn summed(sums: Sums, n: usize, factor: f64, partial: impl FnOnce(Grid, *mut f64)) -> f32 {
    let mut parts = vec![f64::NAN; n.div_ceil(BLOCK_ELEMENTS)];
    partial(Grid::blocks(parts.len()), parts.as_mut_ptr());
    written(1, |result| sums.add_up(Grid::blocks(1), parts.as_ptr(), result, factor, parts.len() as u32))[0]
}

/// Equal, the sign of zeros apart, which the CPU's maximum leaves open.
#[track_caller]
fn assert_equal(what: &str, ours: &[f32], expected: &[f32]) {
    assert_close(what, ours, expected, 0.0);
}

/// At most `tolerance` apart.
#[track_caller]
fn assert_close(what: &str, ours: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), expected.len(), "{what}");
    for (i, (ours, expected)) in ours.iter().zip(expected).enumerate() {
        let same = ours == expected || (ours.is_nan() && expected.is_nan());
        assert!(same || (ours - expected).abs() <= tolerance, "{what}, element {i}: {ours} instead of {expected}");
    }
}

#[test]
fn partial_sums_are_added_up_whatever_their_number() {
    for sums in Sums::compiled() {
        for blocks in [0, 1, 2, 255, 256, 257, 1000] {
            let parts: Vec<f64> = eighths(blocks, 1).into_iter().map(f64::from).collect();
            let result = written(1, |result| sums.add_up(Grid::blocks(1), parts.as_ptr(), result, -0.5, blocks as u32));
            assert_equal(&format!("{blocks} blocks"), &result, &[(-0.5 * parts.iter().sum::<f64>()) as f32]);
        }
    }
}

#[test]
fn images_are_added_up_whatever_their_number() {
    for sums in Sums::compiled() {
        for (images, n) in [0, 1, 2, 7].iter().flat_map(|images| COUNTS.map(|n| (*images, n))) {
            let x = eighths(images * n, 1);
            let result =
                written(n, |result| sums.add_images(Grid::each(n), x.as_ptr(), result, images as u32, n as u64));
            let expected: Vec<f32> = (0..n).map(|i| (0..images).map(|image| x[image * n + i]).sum()).collect();
            assert_equal(&format!("{images} images of {n}"), &result, &expected);
        }
    }
}
