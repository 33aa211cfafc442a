//! Tests of the library and the binary from outside.

mod cli;
mod end_to_end;
mod golden;
