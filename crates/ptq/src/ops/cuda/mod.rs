//! Our kernels on NVIDIA GPUs (`ops/kernels/*.cu`): how they are launched, and one safe function for each.
//!
//! All work of a device goes to one stream in the order in which it is asked for, so no function here waits for anything; what is read from
//! the host for a later step may go beside it ([`ahead`]).
//! Sums are taken in blocks of fixed size and in a fixed order, without atomic operations: repetitions give the same bits.
#![allow(unsafe_code)]

mod adam;
mod ahead;
mod batch_norm;
mod channels;
mod conv;
#[cfg(feature = "cudnn")]
mod cudnn;
mod depthwise;
mod facts;
mod fake_quant;
mod launch;
mod launches;
mod layout;
mod mix;
mod pinned;
mod pool;
mod precision;
mod products;
mod range;
mod recon_error;
mod relu;
mod rounding;
mod squares;
#[cfg(test)]
mod tests;
mod values;
mod virtual_step;

pub(super) use adam::{Moments, adam};
pub(super) use ahead::{Arrival, ahead};
pub(super) use batch_norm::{Batch, BatchStatistics, batch_norm, batch_norm_gradient, batch_statistics, blend};
pub(super) use channels::{add_bias, add_bias_in_place, channel_sums, scale_rows};
pub(super) use conv::{conv_forward, conv_input_gradient, conv_weight_gradient};
pub(super) use fake_quant::{fake_quant, fake_quant_gradient, linearised};
pub(super) use layout::{join, shuffle};
pub(super) use mix::{Rows, mix_rows};
pub(super) use pinned::PinnedValues;
pub(super) use pool::{max_pool_pick, max_pool_put, max_pool_winners};
pub(super) use precision::{precision_of, set_precision};
pub(super) use recon_error::{recon_error, recon_error_gradient};
pub(super) use relu::{clipped_relu, clipped_relu_in_place, clipped_relu_of_sum, gate};
pub(super) use rounding::{Weight, hard_weight, rounding_penalty, soft_weight, soft_weight_gradient};
pub(super) use squares::sums_of_squares;
pub(super) use values::{Values, keep_uploads, storage, tensor, uploaded, with_all, with_values};
pub(super) use virtual_step::{normalised, virtual_step};

pub use facts::{Facts, free_bytes, gpus, name, versions};
pub use launch::open;
pub use launches::{count_launches, launches};
pub use range::Searched;
