//! 2-d convolution.

/// Stride, zero padding (pixels on each side) and number of groups of a square convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub stride: usize,
    pub padding: usize,
    pub groups: usize,
}
