//! Quantizers: where they sit, how their scales start, what they compute.

pub(crate) mod act;
pub mod diagnosis;
pub mod model;
pub mod packing;
pub mod placement;
pub mod range_search;
pub mod weight;
