//! All sizes of one pooling, checked once.

use super::composed::Sliding;
use crate::error::{Error, Result};
use candle_core::Shape;

/// Square max-pooling window, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

/// Sizes of one pooling, checked: no window is empty or lies on padding alone.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Windows {
    pub batch: usize,
    pub channels: usize,
    pub h: usize,
    pub w: usize,
    pub out_h: usize,
    pub out_w: usize,
    pub pool: Pool,
}

impl Windows {
    pub fn new((batch, channels, h, w): (usize, usize, usize, usize), pool: Pool) -> Result<Windows> {
        let Pool { kernel, stride, padding } = pool;
        if kernel == 0 || stride == 0 || 2 * padding > kernel {
            return Err(shape_error(format!("{pool:?}: kernel and stride must be positive and 2 padding <= kernel")));
        }
        if channels == 0 || h + 2 * padding < kernel || w + 2 * padding < kernel || h * w > u32::MAX as usize {
            return Err(shape_error(format!("{pool:?} does not fit an input of {channels} channels of {h}x{w}")));
        }
        let (out_h, out_w) = ((h + 2 * padding - kernel) / stride + 1, (w + 2 * padding - kernel) / stride + 1);
        Ok(Windows { batch, channels, h, w, out_h, out_w, pool })
    }

    /// The windows as [`shifted_views`](crate::ops::composed::shifted_views) takes them.
    pub fn sliding(&self) -> Sliding {
        let Pool { kernel, stride, padding } = self.pool;
        Sliding { kernel: (kernel, kernel), stride, padding, out: (self.out_h, self.out_w) }
    }

    pub fn input(&self) -> Shape {
        (self.batch, self.channels, self.h, self.w).into()
    }

    pub fn output(&self) -> Shape {
        (self.batch, self.channels, self.out_h, self.out_w).into()
    }
}

/// An [`Error::Shape`] of a pooling.
pub(super) fn shape_error(problem: String) -> Error {
    Error::Shape { op: "max_pool2d", problem }
}
