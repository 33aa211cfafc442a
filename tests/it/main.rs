//! Tests of the library and the binary from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod again;
mod allocations;
mod cli;
mod compare;
mod composed;
mod elsewhere;
mod end_to_end;
mod export;
mod fingerprints;
mod hostile;
mod hub;
mod images;
mod interrupted;
mod isolate;
mod kept;
mod layers;
mod list;
mod metaaug;
mod removal;
mod serve;
mod shared;
mod slurm;
mod statistics;
mod stored;
mod supply;
mod tables;
mod together;
mod tracker;
mod tracking;
mod verbs;
