//! Pretrained weights and data.
