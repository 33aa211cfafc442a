//! Tests of the library and the binary from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli;
mod compare;
mod end_to_end;
mod golden;
mod hub;
mod list;
mod metaaug;
mod stored;
mod tables;
