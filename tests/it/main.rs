//! Tests of the library and the binary from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod again;
mod cli;
mod compare;
mod composed;
mod end_to_end;
mod export;
mod golden;
mod hub;
mod images;
mod kernels;
mod list;
mod metaaug;
mod removal;
mod serve;
mod shared;
mod stored;
mod tables;
mod tracking;
mod verbs;
