//! All sizes of one convolution, checked once.

use super::window::inside;
use crate::error::{Error, Result};
use std::ops::Range;

/// Stride, zero padding (pixels on each side) and number of groups of a square convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub stride: usize,
    pub padding: usize,
    pub groups: usize,
}

/// Sizes of input, kernel and output of one convolution over a batch.
///
/// Holding one means that they fit together: no extent, stride or group count is zero except possibly the batch,
/// channels divide into groups, and the kernel fits into the padded input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::ops) struct Sizes {
    pub batch: usize,
    pub c_in: usize,
    pub h: usize,
    pub w: usize,
    pub c_out: usize,
    pub k_h: usize,
    pub k_w: usize,
    pub out_h: usize,
    pub out_w: usize,
    pub stride: usize,
    pub padding: usize,
    pub groups: usize,
}

impl Sizes {
    /// From the shapes of input and weight.
    pub fn new(x: (usize, usize, usize, usize), w: (usize, usize, usize, usize), geometry: Geometry) -> Result<Sizes> {
        let ((batch, c_in, height, width), (c_out, c_in_of_group, k_h, k_w)) = (x, w);
        let Geometry { stride, padding, groups } = geometry;
        if [c_in, height, width, c_out, k_h, k_w, stride, groups].contains(&0) {
            return Err(shape_error(format!("input {x:?}, weight {w:?} or {geometry:?} has a zero extent")));
        }
        if c_in_of_group * groups != c_in || c_out % groups != 0 {
            return Err(shape_error(format!("input {x:?} and weight {w:?} do not divide into {groups} groups")));
        }
        if height + 2 * padding < k_h || width + 2 * padding < k_w {
            return Err(shape_error(format!("a {k_h}x{k_w} kernel in a {height}x{width} input padded by {padding}")));
        }
        let out_h = (height + 2 * padding - k_h) / stride + 1;
        let out_w = (width + 2 * padding - k_w) / stride + 1;
        Ok(Sizes { batch, c_in, h: height, w: width, c_out, k_h, k_w, out_h, out_w, stride, padding, groups })
    }

    pub fn c_in_of_group(&self) -> usize {
        self.c_in / self.groups
    }

    pub fn c_out_of_group(&self) -> usize {
        self.c_out / self.groups
    }

    /// Kernel positions, `K_h * K_w`.
    pub fn taps(&self) -> usize {
        self.k_h * self.k_w
    }

    /// Terms in the sum behind one output value.
    pub fn terms(&self) -> usize {
        self.c_in_of_group() * self.taps()
    }

    /// Pixels of an input channel.
    pub fn in_pixels(&self) -> usize {
        self.h * self.w
    }

    /// Pixels of an output channel.
    pub fn out_pixels(&self) -> usize {
        self.out_h * self.out_w
    }

    /// Values of one input image.
    pub fn in_image(&self) -> usize {
        self.c_in * self.in_pixels()
    }

    /// Values of one output image.
    pub fn out_image(&self) -> usize {
        self.c_out * self.out_pixels()
    }

    /// Values of the weight.
    pub fn weight(&self) -> usize {
        self.c_out * self.terms()
    }

    /// Values of all input images.
    #[cfg(feature = "cuda")]
    pub fn x_len(&self) -> usize {
        self.batch * self.in_image()
    }

    /// Values of all output images.
    #[cfg(feature = "cuda")]
    pub fn y_len(&self) -> usize {
        self.batch * self.out_image()
    }

    /// Whether every channel is its own group, with one filter each.
    pub fn is_depthwise(&self) -> bool {
        self.groups == self.c_in && self.groups == self.c_out
    }

    /// Whether the output is, pixel by pixel, a matrix product of weight and input.
    pub fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == 1 && self.padding == 0
    }

    /// Output rows for which row `tap` of the kernel lies on the input rather than on the padding.
    pub fn rows_inside(&self, tap: usize) -> Range<usize> {
        inside(tap, self.stride, self.padding, self.h, self.out_h)
    }

    /// Output columns for which column `tap` of the kernel lies on the input rather than on the padding.
    pub fn columns_inside(&self, tap: usize) -> Range<usize> {
        inside(tap, self.stride, self.padding, self.w, self.out_w)
    }
}

/// An [`Error::Shape`] of a convolution.
pub(super) fn shape_error(problem: String) -> Error {
    Error::Shape { op: "conv2d", problem }
}
