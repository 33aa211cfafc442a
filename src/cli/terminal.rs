//! What verbs print: lines on standard output and standard error. Neither can end the process, whatever becomes of who reads them, and what
//! names, notes and errors say never reaches a terminal as a command.

use crate::diagnostic::printable;
use std::fmt::Arguments;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

/// Prints a line on standard output.
///
/// Nobody reading on (`harness plan GRID | head`) is no error, and changes neither the work nor its exit code; any other failure is
/// told by [`finish`]. `println!` panics at both.
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::cli::terminal::print_line(format_args!($($arg)*))
    };
}

/// Prints a line on standard error, or nothing where that is closed or full: what it says is lost, and no work. `eprintln!` panics.
macro_rules! tell {
    ($($arg:tt)*) => {
        $crate::cli::terminal::print_error_line(format_args!($($arg)*))
    };
}

/// Why standard output takes no more; `None` inside: nobody reads it.
static LOST: OnceLock<Option<String>> = OnceLock::new();

pub(super) fn print_line(line: Arguments) {
    if LOST.get().is_none() {
        note(writeln!(std::io::stdout(), "{}", printable(&line.to_string())));
    }
}

/// Prints `content` on standard output, as it is unless that is a terminal, under the terms of [`say!`].
pub(super) fn print(content: &[u8]) {
    if LOST.get().is_none() {
        let text = std::io::stdout().is_terminal().then(|| String::from_utf8_lossy(content));
        let shown = text.as_deref().map(printable);
        note(std::io::stdout().write_all(shown.as_deref().map_or(content, str::as_bytes)));
    }
}

pub fn print_error_line(line: Arguments) {
    print_coloured(format_args!("{}", printable(&line.to_string())));
}

/// The same for a line that may be in colours.
pub(super) fn print_coloured(line: Arguments) {
    // Where its own complaints cannot be written, a program has nobody to complain to.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn note(written: std::io::Result<()>) {
    if let Err(error) = written {
        let is_unread = error.kind() == ErrorKind::BrokenPipe;
        LOST.get_or_init(|| (!is_unread).then(|| error.to_string()));
    }
}

/// Writes what is still to be written to standard output. Errors: why not all of it could be, unless nobody was reading.
pub fn finish() -> Result<(), String> {
    note(std::io::stdout().flush());
    match LOST.get() {
        Some(Some(problem)) => Err(problem.clone()),
        _ => Ok(()),
    }
}
