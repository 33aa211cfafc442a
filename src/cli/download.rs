//! Downloads on the terminal: a bar, or lines where there is no terminal.

use super::progress::style;
use crate::diagnostic::printable;
use crate::hub::{Hub, HubEvent, HubObserver, HubSettings};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};

/// The Hub that the environment names; what it downloads is shown unless `quiet`.
pub fn hub(quiet: bool) -> Hub {
    let settings = HubSettings::from_env();
    match quiet {
        true => Hub::new(settings, Arc::new(|event| warn(&event))),
        false => Hub::new(settings, shown()),
    }
}

/// Bars and lines for what happens.
fn shown() -> HubObserver {
    let current: Mutex<Option<ProgressBar>> = Mutex::new(None);
    Arc::new(move |event| {
        let Ok(mut current) = current.lock() else { return };
        match event {
            HubEvent::Lacking { repo, files, bytes } => {
                tell!("{repo}: {files} files to download, {}", HumanBytes(bytes));
            }
            HubEvent::Waiting { file } => tell!("waiting for another process that downloads {file}"),
            HubEvent::Received { file, have, bytes } => {
                let bar = current.get_or_insert_with(|| begin(&file.to_string(), have, bytes));
                bar.set_position(have);
            }
            HubEvent::Stored { file, bytes } => {
                if let Some(bar) = current.take() {
                    bar.finish_and_clear();
                }
                tell!("downloaded {file}, {}", HumanBytes(bytes));
            }
            HubEvent::Unreachable { .. } => warn(&event),
        }
    })
}

fn begin(file: &str, have: u64, bytes: Option<u64>) -> ProgressBar {
    if have > 0 {
        tell!("going on with {file} after {}", HumanBytes(have));
    }
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr_with_hz(5),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(bytes, target);
    bar.set_style(style("{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left"));
    bar.set_message(printable(file).into_owned());
    // The rate is that of this process.
    bar.set_position(have);
    bar.reset_eta();
    bar
}

/// What the user must know however quiet it is to be.
fn warn(event: &HubEvent) {
    if let HubEvent::Unreachable { repo, commit } = event {
        tell!("warning: the Hub does not answer; {repo} is taken to be what it was last seen at, commit {commit}");
    }
}
