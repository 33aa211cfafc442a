//! Parses the command line, runs its verb, prints errors.

use clap::Parser;
use metaaug::allocator;
use metaaug::cli::{Cli, Exit, SET_UP, dispatch, failed, terminal};
use std::io::ErrorKind;
use std::process::ExitCode;

/// Tensors come and go with every operation; the system's allocator hands their pages back to the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Candle's own threads for element-wise operations.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

fn main() -> ExitCode {
    without_spinning_threads();
    allocator::keep_freed();
    let code = match Cli::try_parse() {
        Ok(cli) => dispatch(cli).map_or_else(failed, Exit::code),
        Err(usage) => match usage.print() {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                terminal::print_error_line(format_args!("error: cannot print: {error}"));
                SET_UP
            }
            _ => u8::try_from(usage.exit_code()).unwrap_or(2),
        },
    };
    ExitCode::from(match terminal::finish() {
        Ok(()) => code,
        Err(problem) => {
            terminal::print_error_line(format_args!("error: cannot write to standard output: {problem}"));
            if code == 0 { SET_UP } else { code }
        }
    })
}

/// Keeps Candle from starting threads of its own, unless the user asks for them.
///
/// They wait for each other in busy loops beside the threads that do our work: on a machine whose cores are all in use
/// a cell took three times as long with them.
fn without_spinning_threads() {
    if std::env::var_os(CANDLE_THREADS).is_none() {
        // SAFETY: this is the first thing the process does; no other thread reads or writes the environment.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var(CANDLE_THREADS, "1");
        }
    }
}
