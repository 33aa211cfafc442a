//! `harness plan`.

use super::Exit;
use super::session::{GridArgs, Session};
use crate::error::Result;
use crate::experiment::State;
use candle_core::Device;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    grid: GridArgs,
}

/// Lists every cell with its id and state.
pub fn plan(args: &Args) -> Result<Exit> {
    let session = Session::open(&args.grid, &Device::Cpu)?;
    for planned in &session.plan {
        let why = match &planned.state {
            State::Failed(error) => format!("  {error}"),
            State::Stale { differs, .. } => {
                let names: Vec<&str> = differs.iter().map(|(name, ..)| name.as_str()).collect();
                format!("  {} changed", names.join(", "))
            }
            State::Done | State::Missing => String::new(),
        };
        say!("{:8} {}{why}", planned.state.name(), planned.id);
    }
    let done = session.plan.iter().filter(|planned| planned.state == State::Done).count();
    say!("{} cells, {done} done", session.plan.len());
    Ok(Exit::Done)
}
