//! Files that are whole or absent, told apart by their hashes, results that are kept between runs, and files of others.

pub mod atomic;
pub mod cache;
pub mod foreign;
mod hash;

pub use hash::sha256;
