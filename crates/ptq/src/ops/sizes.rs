//! All sizes of one convolution, checked once.

use super::window::inside;
use crate::error::{Error, Result};
use std::ops::Range;

/// Stride, zero padding and number of groups of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub stride: usize,
    pub padding: Padding,
    pub groups: usize,
}

impl Geometry {
    /// Of an input that has its zeros around it.
    pub(in crate::ops) fn without_padding(self) -> Geometry {
        Geometry { padding: Padding::Each(0), ..self }
    }
}

/// Zeros around the input of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// So many pixels on each side.
    Each(usize),
    /// TensorFlow's `SAME`: what makes the output `ceil(input / stride)` pixels, half of it on each side, the odd one behind.
    Same,
}

impl Padding {
    /// Zeros before and behind a row of `input` pixels under windows of `kernel` pixels, `stride` apart.
    pub fn around(self, input: usize, kernel: usize, stride: usize) -> (usize, usize) {
        match self {
            Padding::Each(padding) => (padding, padding),
            Padding::Same => {
                let all = ((input.div_ceil(stride).max(1) - 1) * stride + kernel).saturating_sub(input);
                (all / 2, all.div_ceil(2))
            }
        }
    }

    /// Windows over a row of `input` pixels; `None` where none fits.
    pub fn windows(self, input: usize, kernel: usize, stride: usize) -> Option<usize> {
        let (before, behind) = self.around(input, kernel, stride.max(1));
        Some((before + input + behind).checked_sub(kernel)?.checked_div(stride)? + 1)
    }
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
    /// Rows of zeros above and below the input, columns of zeros left and right of it.
    pub top: usize,
    pub bottom: usize,
    pub left: usize,
    pub right: usize,
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
        let out = padding.windows(height, k_h, stride).zip(padding.windows(width, k_w, stride));
        let Some((out_h, out_w)) = out else {
            return Err(shape_error(format!("a {k_h}x{k_w} kernel in a {height}x{width} input, padding {padding:?}")));
        };
        let ((top, bottom), (left, right)) = (padding.around(height, k_h, stride), padding.around(width, k_w, stride));
        let (h, w) = (height, width);
        Ok(Sizes { batch, c_in, h, w, c_out, k_h, k_w, out_h, out_w, stride, top, bottom, left, right, groups })
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
        self.taps() == 1 && self.stride == 1 && [self.top, self.bottom, self.left, self.right] == [0; 4]
    }

    /// The padding where it is the same on all four sides.
    pub fn even_padding(&self) -> Option<usize> {
        [self.bottom, self.left, self.right].iter().all(|side| *side == self.top).then_some(self.top)
    }

    /// Output rows for which row `tap` of the kernel lies on the input rather than on the padding.
    pub fn rows_inside(&self, tap: usize) -> Range<usize> {
        inside(tap, self.stride, self.top, self.h, self.out_h)
    }

    /// Output columns for which column `tap` of the kernel lies on the input rather than on the padding.
    pub fn columns_inside(&self, tap: usize) -> Range<usize> {
        inside(tap, self.stride, self.left, self.w, self.out_w)
    }
}

/// An [`Error::Shape`] of a convolution.
pub(super) fn shape_error(problem: String) -> Error {
    Error::Shape { op: "conv2d", problem }
}
