//! What a transform network holds, by its layers, for predictions of the memory that it takes.

use super::config::Up;

/// What a network has for images of some size; sums over its layers, each a method here.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Size {
    /// Numbers that it learns.
    pub parameters: usize,
    /// Values per image that a pass with gradients keeps.
    pub values: usize,
}

impl Size {
    /// Of so many of each.
    pub fn new(parameters: usize, values: usize) -> Self {
        Self { parameters, values }
    }

    /// With a `Conv` that has a bias, over `pixels`.
    pub fn conv(self, (c_in, c_out): (usize, usize), kernel: usize, pixels: usize) -> Self {
        self.with(c_out * (c_in * kernel * kernel + 1), c_out * pixels)
    }

    /// With a `DoubleConv`: convolution, normalisation and activation function each have an output.
    pub fn double_conv(self, (c_in, c_mid, c_out): (usize, usize, usize), pixels: usize) -> Self {
        self.with(9 * c_mid * (c_in + c_out) + 2 * (c_mid + c_out), 3 * (c_mid + c_out) * pixels)
    }

    /// With a `Doubling`, before which nothing is kept, and what the next layer reads: `read` channels over `pixels`.
    pub fn doubling(self, (c_in, c_out): (usize, usize), up: Up, read: usize, pixels: usize) -> Self {
        let parameters = match up {
            Up::Transposed => c_out * (4 * c_in + 1),
            Up::Bilinear => 0,
        };
        self.with(parameters, read * pixels)
    }

    fn with(self, parameters: usize, values: usize) -> Self {
        Self { parameters: self.parameters + parameters, values: self.values + values }
    }
}
