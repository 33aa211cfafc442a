//! Tensor operations whose gradients must be exact or fast.
//!
//! Candle's own gradients of `clamp`, `relu`, `max_pool2d` and others differ from those the published methods were
//! trained with (each file says how), and chains of its element-wise operations spend their time on memory traffic.
//! So every operation here is one pass forward and one backward over contiguous f32 data, spread over rayon's threads;
//! sums are taken over blocks of fixed size in a fixed order, so that results do not depend on the number of threads.
//! On NVIDIA GPUs the same operations are kernels of `ops/kernels/*.cu` (`cuda`). Elsewhere, and for what has no kernel, each is a
//! composition of Candle's operations with the same formula (`composed`); `dispatch` chooses.
//! Gradients go back along [`tape`].

pub mod adam;
pub mod ahead;
pub mod batch_norm;
pub mod channels;
mod composed;
pub mod conv;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod device;
mod dispatch;
pub(crate) mod divergence;
pub mod dual;
pub mod fake_quant;
pub mod finite;
mod fresh;
mod kernel;
pub mod layout;
mod mask;
pub mod mix;
pub mod padded_identity;
pub mod pinned;
pub mod pool;
pub(crate) mod power;
pub mod precision;
mod quantizer;
pub mod recon_error;
pub mod relu;
pub mod rounding;
#[cfg(feature = "cuda")]
pub mod self_test;
mod sizes;
pub mod squares;
pub(crate) mod statistics;
pub mod tape;
pub mod upload;
pub mod virtual_step;

use dispatch::dispatch;
pub(crate) use kernel::{BLOCK, block_sums, lane_sum, vectorised};

mod window;
mod windows;

#[cfg(test)]
pub(crate) mod check;
