//! Reconstruction of one unit: trains its quantizers on activations that are computed once and kept.
//!
//! [`crate::quantize`] goes from unit to unit.

pub mod activations;
pub(crate) mod batches;
pub mod correction;
pub mod event;
pub(crate) mod fisher;
pub mod midway;
pub(crate) mod part;
pub mod prediction;
pub mod propagate;
pub(crate) mod rows;
pub mod schedule;
pub mod start;
pub mod trace;
pub mod train;
