//! Low-bit post-training quantization of convolutional networks.
//!
//! ```text
//! named tensors -> arch::load -> Network -> fold_bn -> quantize (unit after unit) -> QuantModel -> forward
//!                                 methods::find("qdrop").recipe -> Recipe  ^
//! ```
//!
//! `examples/quantize.rs` is that line as a program. The library knows no files of experiments and prints nothing: progress goes to
//! a [`Control`](recon::event::Control), times are `tracing` spans.
//!
//! | module | what it holds |
//! |---|---|
//! | [`checkpoint`] | quantized networks as files have them: packed levels, scales, zero points |
//! | [`quantize`] | quantizes a network, one unit after the other |
//! | [`methods`] | the published recipes |
//! | [`revisions`] | revisions of the arithmetic that methods share |
//! | [`meta`] | MetaAug: transform networks and how they are trained |
//! | [`recon`] | reconstruction of one unit |
//! | [`quant`] | quantizers, range searches, where they sit |
//! | [`arch`] | architectures: lists of units |
//! | [`graph`] | units and nodes, the interpreter, BatchNorm folding, named weights |
//! | [`recipe`] | how a network is quantized, as a value |
//! | [`augment`] | fixed augmentations |
//! | [`ops`] | tensor operations whose gradients must be exact or fast |
//! | [`rng`] | keyed random streams |
//! | [`error`] | the error type |
//! | [`device_error`] | what errors of a GPU mean |

pub mod arch;
pub mod augment;
pub mod checkpoint;
pub mod device_error;
pub mod error;
pub mod graph;
pub mod meta;
pub mod methods;
pub mod ops;
pub mod quant;
pub mod quantize;
pub mod recipe;
pub mod recon;
pub mod revisions;
pub mod rng;

pub use error::{Error, Result};
