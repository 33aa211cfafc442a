//! Max pooling and global average pooling, batch 32, with their gradients; `GB/s` of input read.
//!
//! The gradient includes Candle's own work for one node: zeros, an addition.

#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use ptq::ops::pool::Pool;
use ptq::ops::pool::{global_avg_pool, max_pool2d};

fn main() {
    divan::main();
}

/// The pooling behind the stem of a ResNet.
const STEM: Pool = Pool { kernel: 3, stride: 2, padding: 1 };

fn noise(channels: usize, image: usize) -> (Tensor, BytesCount) {
    let shape = (32, channels, image, image);
    let x = Tensor::randn(0f32, 1., shape, &Device::Cpu).unwrap();
    let bytes = BytesCount::of_many::<f32>(x.elem_count());
    (x, bytes)
}

#[divan::bench(args = [28, 56, 112])]
fn max_pool(bencher: Bencher, image: usize) {
    let (x, bytes) = noise(64, image);
    bencher.counter(bytes).bench(|| max_pool2d(black_box(&x), STEM).unwrap());
}

#[divan::bench(args = [28, 56, 112])]
fn max_pool_gradient(bencher: Bencher, image: usize) {
    let (x, bytes) = noise(64, image);
    let x = Var::from_tensor(&x).unwrap();
    let y = max_pool2d(&x, STEM).unwrap();
    bencher.counter(bytes).bench(|| black_box(&y).backward().unwrap());
}

#[divan::bench(args = [7, 28])]
fn average_pool(bencher: Bencher, image: usize) {
    let (x, bytes) = noise(512, image);
    bencher.counter(bytes).bench(|| global_avg_pool(black_box(&x)).unwrap());
}

#[divan::bench(args = [7, 28])]
fn average_pool_gradient(bencher: Bencher, image: usize) {
    let (x, bytes) = noise(512, image);
    let x = Var::from_tensor(&x).unwrap();
    let y = global_avg_pool(&x).unwrap();
    bencher.counter(bytes).bench(|| black_box(&y).backward().unwrap());
}
