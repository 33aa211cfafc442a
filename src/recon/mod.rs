//! Reconstruction: optimises the quantizers of one unit after the other.
pub mod recipe;
