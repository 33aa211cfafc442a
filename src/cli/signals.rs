//! Signals that ask a verb to stop: Ctrl-C, and what schedulers and closed terminals send.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Exit code of an interruption by Ctrl-C, or by whoever else may interrupt.
const INTERRUPTED: u8 = 106;

/// Exit code of the signal that was heard first.
static HEARD: AtomicU8 = AtomicU8::new(INTERRUPTED);

/// The exit code of an interrupted process: 128 and the number of the signal, but 106 for Ctrl-C.
pub(super) fn interrupted_code() -> u8 {
    HEARD.load(Ordering::Relaxed)
}

/// A flag that the first signal sets; the second ends the process at once.
///
/// SIGINT (Ctrl-C), SIGTERM (schedulers), SIGUSR1 (schedulers, before the time of a job is over) and SIGHUP (a closed terminal); a SIGHUP that is ignored already, as by `nohup`, stays so.
#[cfg(unix)]
pub(super) fn interruptible() -> Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::iterator::Signals;
    let cancelled = Arc::new(AtomicBool::new(false));
    let mut heeded = vec![SIGINT, SIGTERM, SIGUSR1];
    heeded.extend((!is_ignored(SIGHUP)).then_some(SIGHUP));
    let mut signals = Signals::new(heeded).map_err(cannot_listen)?;
    let flag = cancelled.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let (name, code) = match signal {
                SIGINT => ("Ctrl-C", INTERRUPTED),
                SIGTERM => ("SIGTERM", 128 + SIGTERM as u8),
                SIGUSR1 => ("SIGUSR1", 128 + SIGUSR1 as u8),
                _ => ("SIGHUP", 128 + SIGHUP as u8),
            };
            if flag.load(Ordering::Relaxed) {
                std::process::exit(code.into());
            }
            HEARD.store(code, Ordering::Relaxed);
            flag.store(true, Ordering::Relaxed);
            tell!("{name}: stopping; a second one stops at once");
        }
    });
    Ok(cancelled)
}

/// Has a file that becomes larger than `ulimit -f` allows be an error of whoever writes it: the signal would end the process without a word.
#[cfg(unix)]
pub(super) fn outlive_size_limit() {
    use signal_hook::consts::SIGXFSZ;
    // Whoever listens is not ended. Where that cannot be, it is as with any other program.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).ok();
}

#[cfg(not(unix))]
pub(super) fn outlive_size_limit() {}

/// Where there is only Ctrl-C.
#[cfg(not(unix))]
pub(super) fn interruptible() -> Result<Arc<AtomicBool>> {
    use signal_hook::consts::SIGINT;
    use signal_hook::flag::{register, register_conditional_shutdown};
    let cancelled = Arc::new(AtomicBool::new(false));
    register_conditional_shutdown(SIGINT, INTERRUPTED.into(), cancelled.clone()).map_err(cannot_listen)?;
    register(SIGINT, cancelled.clone()).map_err(cannot_listen)?;
    Ok(cancelled)
}

fn cannot_listen(error: std::io::Error) -> Error {
    Error::Usage(format!("cannot listen to signals: {error}"))
}

/// Whether this process was started so that `signal` does nothing.
#[cfg(unix)]
#[allow(unsafe_code)]
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all-zero bytes are a value of this plain structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with no new action the call only writes the present one to `action`, which outlives it.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}
