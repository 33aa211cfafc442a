//! Sizes of convolutions.

use super::PLANES;
use ptq::ops::conv::{Geometry, Padding};

/// `Sizes` of `convolution.h`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Sizes {
    pub channels: u32,
    pub h: u32,
    pub w: u32,
    pub out_h: u32,
    pub out_w: u32,
    pub k_h: u32,
    pub k_w: u32,
    pub stride: u32,
    pub top: u32,
    pub left: u32,
}

impl Sizes {
    /// For an input of this shape under windows of `kernel` pixels.
    pub fn of(input: [usize; 4], out: (usize, usize), kernel: (usize, usize), geometry: Geometry) -> Self {
        let Geometry { stride, padding, .. } = geometry;
        let [_, channels, h, w] = input;
        let ((top, _), (left, _)) = (padding.around(h, kernel.0, stride), padding.around(w, kernel.1, stride));
        let [channels, h, w, out_h, out_w, k_h, k_w, stride, top, left] =
            [channels, h, w, out.0, out.1, kernel.0, kernel.1, stride, top, left].map(|size| size as u32);
        Self { channels, h, w, out_h, out_w, k_h, k_w, stride, top, left }
    }
}

/// Calls `test` with kernel, plane, output plane, and geometry, for such kernels with all strides, paddings and planes that fit.
pub fn each_geometry(
    kernels: &[(usize, usize)],
    groups: usize,
    test: impl Fn((usize, usize), (usize, usize), (usize, usize), Geometry),
) {
    for (kernel, stride) in kernels.iter().flat_map(|kernel| (1..4).map(move |stride| (*kernel, stride))) {
        let paddings = (0..4).map(Padding::Each).chain([Padding::Same]);
        for (padding, (h, w)) in paddings.flat_map(|padding| PLANES.map(|plane| (padding, plane))) {
            if let Some(out) = padding.windows(h, kernel.0, stride).zip(padding.windows(w, kernel.1, stride)) {
                test(kernel, (h, w), out, Geometry { stride, padding, groups });
            }
        }
    }
}
