//! Pretrained weights and data: compiled into the binary, or from files.

pub mod checkpoint;
pub mod embedded;
mod pickle;
