//! Pretrained weights and data: compiled into the binary, from files, or from the Hugging Face Hub.

pub mod checkpoint;
mod pickle;
pub mod source;
