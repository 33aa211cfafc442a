//! Files that are whole or absent, told apart by their hashes, and results that are kept between runs.

pub mod atomic;
pub mod cache;
mod hash;

pub use hash::sha256;
