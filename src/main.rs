//! Parses the command line, runs its verb, prints errors.

use clap::Parser;
use metaaug::cli::{Cli, dispatch, exit_code};
use metaaug::error::Error;
use std::process::ExitCode;

/// Tensors come and go with every operation; the system's allocator hands their pages back to the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let code = exit_code(&error);
            match error {
                Error::Grid(error) => eprintln!("{:?}", miette::Report::new(*error)),
                error => eprintln!("error: {error}"),
            }
            ExitCode::from(code)
        }
    }
}
