//! Runs on disk.
pub mod record;
