//! `harness plan`.

use super::Exit;
use super::bytes;
use super::session::{GridArgs, Session, lacks_data};
use crate::error::Result;
use crate::experiment::Cell;
use crate::launch::{Loader, sensible_memory_bytes};
use crate::store::State;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    grid: GridArgs,
}

/// Lists every cell with its id and state, and how much memory it will take; and what will be downloaded of its data.
pub fn plan(args: &Args) -> Result<Exit> {
    let mut session = Session::without_downloads(&args.grid)?;
    let width = session.plan.iter().map(|planned| planned.id.to_string().len()).max().unwrap_or(0);
    for planned in &session.plan {
        let why = match &planned.state {
            State::Failed(error) => format!("  {error}"),
            State::Stale { differs, .. } => {
                let names: Vec<&str> = differs.iter().map(|(name, ..)| name.as_str()).collect();
                format!("  {} changed", names.join(", "))
            }
            State::Done | State::Missing => String::new(),
        };
        let memory = match planned.state {
            State::Done => String::new(),
            _ => memory(&planned.cell, &mut session.loader),
        };
        let line = format!("{:8} {:width$}{memory}{why}", planned.state.name(), planned.id.to_string());
        say!("{}", line.trim_end());
    }
    let done = session.plan.iter().filter(|planned| planned.state == State::Done).count();
    say!("{} cells, {done} done", session.plan.len());
    session.say_lacking()?;
    Ok(Exit::Done)
}

/// How much of it `cell` will take; nothing while its data are to be downloaded, since their size is not known.
///
/// What cannot be loaded, or does not fit, is a failed cell when it runs, and no reason to list nothing.
fn memory(cell: &Cell, loader: &mut Loader) -> String {
    let peak = lacks_data(loader, cell).and_then(|lacks| match lacks {
        true => Ok(None),
        false => loader.peak_bytes(cell, sensible_memory_bytes()).map(Some),
    });
    match peak {
        Ok(Some(peak)) => format!("  about {}", bytes::shown(peak)),
        Ok(None) => String::new(),
        Err(error) => format!("  will fail: {error}"),
    }
}
