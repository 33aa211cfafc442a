//! `harness why`.

use super::Exit;
use super::session::{GridArgs, ResultsArgs, Session};
use crate::error::{Error, Result};
use crate::store::{Planned, State};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Run id, or the beginning of one (of a cell that may not have run yet); EXPERIMENT/RUN for those of one experiment.
    run: String,
    /// Grid file that the cell is of; by default all files under `experiments`.
    #[arg(long)]
    grid: Option<PathBuf>,
    /// Look at the cells of the grid's [smoke] section.
    #[arg(long)]
    smoke: bool,
    #[command(flatten)]
    results: ResultsArgs,
}

/// Explains the state of the cells whose id begins as given.
pub fn why(args: &Args) -> Result<Exit> {
    let grids = match &args.grid {
        Some(grid) => vec![grid.clone()],
        None => grids_under(Path::new("experiments"))?,
    };
    let (experiment, run) =
        args.run.rsplit_once('/').map_or((None, args.run.as_str()), |(name, run)| (Some(name), run));
    let mut found = 0;
    for grid in grids {
        let session = GridArgs { smoke: args.smoke, ..GridArgs::of(&grid, &args.results) };
        let session = match Session::of_what_is_here(&session) {
            Ok(session) => session,
            // A grid that was not asked for may be broken, have no smoke section, or want what is not here.
            Err(error) if args.grid.is_none() => {
                tell!("warning: skipping {}: {error}", grid.display());
                continue;
            }
            Err(error) => return Err(error),
        };
        if experiment.is_some_and(|name| name != session.experiment.name) {
            continue;
        }
        for planned in session.plan.iter().filter(|planned| planned.id.to_string().starts_with(run)) {
            explain(planned, &grid);
            found += 1;
        }
    }
    match found {
        0 => Err(Error::NothingMatched(format!(
            "no cell of a grid begins with {:?}; `harness plan GRID` lists ids, --grid names a grid elsewhere",
            args.run
        ))),
        _ => Ok(Exit::Done),
    }
}

fn explain(planned: &Planned, grid: &Path) {
    say!("{}  of {}", planned.id, grid.display());
    match &planned.state {
        State::Done => {
            say!("  done: a run of exactly this configuration, weights, data and revisions is stored")
        }
        State::Failed(error) => say!("  failed, and will be tried again: {error}"),
        State::Missing => say!("  missing: nothing is stored under this name"),
        State::Stale { stored, differs } => {
            say!("  stale: {stored} is stored, but");
            for (name, old, new) in differs {
                say!("    {name}: {old} -> {new}");
            }
        }
    }
}

/// Every TOML file below `folder`, sorted.
fn grids_under(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut grids = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(Error::io("cannot read", &folder))? {
            let path = entry.map_err(Error::io("cannot read", &folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                grids.push(path);
            }
        }
    }
    grids.sort();
    Ok(grids)
}
