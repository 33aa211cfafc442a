//! Tests of the library from outside: against values of published code, and kernels of GPUs against the CPU's operations.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod golden;
mod kernels;
