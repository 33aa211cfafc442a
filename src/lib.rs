//! A research harness for low-bit post-training quantization.
//!
//! ```text
//! experiments/x.toml -> Experiment -> Vec<Cell> -> Plan (filtered, minus what is stored)
//! per cell: Cell -> Assets{network, calib, test} -> QuantModel (starting scales)
//!           -> QuantModel (reconstructed) + Trace -> Metrics -> Record -> results/<x>/runs/
//! cells travel: Job -> launcher -> Event*, Run{Record, artefacts}
//! results/<x>/runs/* -> DataFrame -> tables, figures
//! ```
//!
//! The numerical core is a library of its own, [`ptq`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | the command line, one file per verb |
//! | [`launch`] | running jobs, in this process or each in one of its own |
//! | [`cluster`] | tasks of Slurm and HyperQueue that work on a grid |
//! | [`serve`] | the pages of all experiments, live, on loopback |
//! | [`track`] | a grid as it runs, told to an MLflow server |
//! | [`export`] | runs for MLflow, Trackio and TensorBoard, kept networks for ONNX and the Hub |
//! | [`report`] | tables, figures, pages and comparisons from records |
//! | [`store`] | records and kept networks on disk, and what of a grid is not among them |
//! | [`experiment`] | grid files, the cells they expand to, run ids |
//! | [`assets`] | pretrained weights: compiled in, files, or from the Hugging Face Hub |
//! | [`data`] | data sets, calibration samples |
//! | [`hub`] | repositories of the Hugging Face Hub, through its cache |
//! | [`http`] | what requests to servers have in common |
//! | [`published`] | published numbers |
//! | [`embedded`] | the files that are compiled in |
//! | [`profile`] | where the time of a run goes |
//! | [`disk`] | whole files, hashes, and results kept between runs |
//! | [`allocator`] | how long freed memory is kept |
//! | [`error`] | the error type |
//! | [`diagnostic`] | errors that show the text of a grid file |

pub mod allocator;
pub mod assets;
pub mod cli;
pub mod cluster;
pub mod data;
pub mod diagnostic;
pub mod disk;
pub mod embedded;
pub mod error;
pub mod experiment;
pub mod export;
pub mod http;
pub mod hub;
pub mod launch;
pub mod profile;
pub mod published;
pub mod report;
pub mod serve;
pub mod store;
pub mod track;

pub use error::{Error, Result};
