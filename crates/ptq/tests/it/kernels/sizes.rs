//! Sizes of convolutions.

use ptq::ops::conv::Geometry;

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
