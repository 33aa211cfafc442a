//! A research harness for low-bit post-training quantization.
//!
//! ```text
//! experiments/x.toml -> Experiment -> Vec<Cell> -> Plan (filtered, minus what is stored)
//! per cell: Cell -> Assets{network, calib, test} -> QuantModel (starting scales)
//!           -> QuantModel (reconstructed) + Trace -> Metrics -> Record -> results/<x>/runs/
//! results/<x>/runs/* -> DataFrame -> tables, figures
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | the command line, one file per verb |
//! | [`experiment`] | grid files, the cells they expand to, run ids, the plan |
//! | [`arch`] | architectures: lists of units |
//! | [`graph`] | units and nodes, the interpreter, BatchNorm folding, named weights |
//! | [`assets`] | pretrained weights and data: compiled in, files, or from the Hugging Face Hub |
//! | [`data`] | data sets, calibration samples |
//! | [`ops`] | tensor operations whose gradients must be exact or fast |
//! | [`quant`] | quantizers, range searches, where they sit |
//! | [`recon`] | reconstruction of one unit after the other |
//! | [`meta`] | MetaAug: transform networks and how they are trained |
//! | [`methods`] | the published recipes |
//! | [`launch`] | running one cell, and the cells of a plan |
//! | [`store`] | records on disk |
//! | [`report`] | tables, figures, pages and comparisons from records; published numbers |
//! | [`serve`] | the pages of all experiments, live, on loopback |
//! | [`profile`] | where the time of a run goes |
//! | [`export`] | runs in the formats of MLflow and TensorBoard |
//! | [`rng`] | keyed random streams |
//! | [`allocator`] | how long freed memory is kept |
//! | [`error`] | the error type |

pub mod allocator;
pub mod arch;
pub mod assets;
pub mod cli;
pub mod data;
pub mod error;
pub mod experiment;
pub mod export;
pub mod graph;
pub mod launch;
pub mod meta;
pub mod methods;
pub mod ops;
pub mod profile;
pub mod quant;
pub mod recon;
pub mod report;
pub mod rng;
pub mod serve;
pub mod store;

pub use error::{Error, Result};
