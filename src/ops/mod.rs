//! Tensor operations whose gradients must be exact or fast.
//!
//! Candle's own gradients of `clamp`, `max_pool2d` and others do not fit the published methods (see each file).
pub mod conv;
pub mod pool;

mod window;

#[cfg(test)]
mod check;
