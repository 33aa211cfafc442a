//! Convolution and its two gradients on the shapes of the supported networks, batch 32; `Gitem/s` are GFLOP/s.
//!
//! `cargo bench --bench conv -- resnet20`; `RAYON_NUM_THREADS=1` for one core. See `benches/NOTES.md`.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ptq::ops::conv::{Geometry, Padding, conv2d, input_gradient, weight_gradient};
use std::fmt;

fn main() {
    divan::main();
}

const BATCH: usize = 32;

/// One layer: where it comes from, channels, square kernel and image, stride, groups; padding keeps the size.
#[derive(Clone, Copy)]
struct Layer {
    network: &'static str,
    c_in: usize,
    c_out: usize,
    kernel: usize,
    image: usize,
    stride: usize,
    groups: usize,
}

const fn layer(
    network: &'static str,
    [c_in, c_out]: [usize; 2],
    kernel: usize,
    image: usize,
    stride: usize,
    groups: usize,
) -> Layer {
    Layer { network, c_in, c_out, kernel, image, stride, groups }
}

const LAYERS: &[Layer] = &[
    layer("resnet20", [1, 16], 3, 28, 1, 1),
    layer("resnet20", [16, 16], 3, 28, 1, 1),
    layer("resnet20", [16, 32], 3, 28, 2, 1),
    layer("resnet20", [16, 32], 1, 28, 2, 1),
    layer("resnet20", [32, 32], 3, 14, 1, 1),
    layer("resnet20", [32, 64], 3, 14, 2, 1),
    layer("resnet20", [64, 64], 3, 7, 1, 1),
    layer("mobilenet-tiny", [16, 64], 1, 28, 1, 1),
    layer("mobilenet-tiny", [96, 16], 1, 14, 1, 1),
    layer("mobilenet-tiny", [64, 64], 3, 28, 2, 64),
    layer("mobilenet-tiny", [96, 96], 3, 14, 1, 96),
    layer("resnet18", [64, 64], 3, 56, 1, 1),
    layer("resnet18", [128, 128], 3, 28, 1, 1),
    layer("resnet18", [256, 256], 3, 14, 1, 1),
    layer("resnet18", [512, 512], 3, 7, 1, 1),
];

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Layer { network, c_in, c_out, kernel, image, stride, groups } = self;
        write!(f, "{network} {c_in}-{c_out} {kernel}x{kernel} {image}x{image}")?;
        if *stride > 1 {
            write!(f, " /{stride}")?;
        }
        if *groups > 1 {
            write!(f, " {groups} groups")?;
        }
        Ok(())
    }
}

impl Layer {
    fn geometry(&self) -> Geometry {
        Geometry { stride: self.stride, padding: Padding::Each(self.kernel / 2), groups: self.groups }
    }

    /// Input, weight and the gradient of the output.
    fn tensors(&self) -> (Tensor, Tensor, Tensor) {
        let out = (self.image - 1) / self.stride + 1;
        let noise =
            |shape| Tensor::randn(0f32, 1., shape, &Device::Cpu).and_then(|t: Tensor| t.to_dtype(DType::F32)).unwrap();
        (
            noise((BATCH, self.c_in, self.image, self.image)),
            noise((self.c_out, self.c_in / self.groups, self.kernel, self.kernel)),
            noise((BATCH, self.c_out, out, out)),
        )
    }

    /// Floating-point operations, two to a multiplication and addition; those on padding count.
    fn flops(&self) -> ItemsCount {
        let out = (self.image - 1) / self.stride + 1;
        let terms = self.c_in / self.groups * self.kernel * self.kernel;
        ItemsCount::new(2 * BATCH * self.c_out * out * out * terms)
    }
}

#[divan::bench(args = LAYERS)]
fn forward(bencher: Bencher, layer: &Layer) {
    let (x, w, _) = layer.tensors();
    bencher.counter(layer.flops()).bench(|| conv2d(black_box(&x), &w, None, layer.geometry()).unwrap());
}

#[divan::bench(args = LAYERS)]
fn gradient_to_input(bencher: Bencher, layer: &Layer) {
    let (_, w, gy) = layer.tensors();
    let size = (layer.image, layer.image);
    bencher.counter(layer.flops()).bench(|| input_gradient(black_box(&gy), &w, size, layer.geometry()).unwrap());
}

#[divan::bench(args = LAYERS)]
fn gradient_to_weight(bencher: Bencher, layer: &Layer) {
    let (x, _, gy) = layer.tensors();
    let size = (layer.kernel, layer.kernel);
    bencher.counter(layer.flops()).bench(|| weight_gradient(black_box(&x), &gy, size, layer.geometry()).unwrap());
}
